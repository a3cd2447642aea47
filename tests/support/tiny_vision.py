"""Tiny random models that see, by transformers' own classes, and as folders that a user would pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_checkpoints import SPECIAL, tiny_tokenizer
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PhiConfig,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

PLACEHOLDER = 265
"""Id of "<image>": the first behind those of tiny_tokenizer."""
TEXT = {
    "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 512, "initializer_range": 0.15, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def varied(model: torch.nn.Module) -> Any:
    """Weights large enough to matter, biases and norms too."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or "class_embedding" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
            elif "norm" in name:
                p.copy_(0.5 + torch.rand(p.shape, generator=generator))
            elif "vision" in name or "projector" in name or "connector" in name:
                p.copy_(torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5)
    return model.eval().requires_grad_(False)


def tiny_llava(text: str = "phi", tower: str = "clip", **options: Any) -> LlavaForConditionalGeneration:
    """LLaVA with a picture of 28 x 28 in patches of 7; options are those of LlavaConfig."""
    torch.manual_seed(0)
    kind = PhiConfig if text == "phi" else LlamaConfig
    sizes = {**TOWER, "image_size": 28, "patch_size": 7}
    seen = CLIPVisionConfig(**sizes) if tower == "clip" else SiglipVisionConfig(**sizes)
    if tower != "clip":
        options = {"vision_feature_select_strategy": "full", **options}
    config = LlavaConfig(vision_config=seen, text_config=kind(**TEXT), image_token_index=PLACEHOLDER, **options)
    return varied(LlavaForConditionalGeneration(config))


def tiny_smolvlm(**options: Any) -> SmolVLMForConditionalGeneration:
    """SmolVLM with pictures of 48 x 48 in patches of 8, squares of 2 x 2 of which become one row."""
    torch.manual_seed(0)
    config = SmolVLMConfig(
        vision_config={**TOWER, "image_size": 48, "patch_size": 8},
        text_config={**TEXT, "model_type": "llama", "num_key_value_heads": 2},
        image_token_id=PLACEHOLDER, scale_factor=2, pad_token_id=0, **options,
    )  # fmt: skip
    return varied(SmolVLMForConditionalGeneration(config))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: noise over gradients, so that every filter and border shows."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([255 * y / height, 255 * x / width, 127 + 100 * np.sin(x / 5 + y / 9)], -1)
    return np.clip(smooth + random.normal(0, 30, smooth.shape), 0, 255).astype(np.uint8)


LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{{ '<|end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
PREPROCESSOR = {
    "llava": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "resample": 3,
        "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "do_resize": True, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255,
        "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    },
    "smolvlm": {
        "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 96}, "resample": 1,
        "max_image_size": {"longest_edge": 48}, "do_image_splitting": True, "do_pad": True, "do_resize": True,
        "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    },
}  # fmt: skip
TILE_TOKENS = ("<fake_token_around_image>", "<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)))


def vision_folder(path: Path, kind: str = "llava", *, template: bool = True, **options: Any) -> Path:
    """Saves a model by transformers itself, with a tokenizer that has "<image>", and the picture's preprocessing."""
    model = tiny_llava(**options) if kind == "llava" else tiny_smolvlm(**options)
    model.save_pretrained(path)
    tokenizer = tiny_tokenizer()
    assert tokenizer.get_vocab_size() == PLACEHOLDER
    tokenizer.add_special_tokens(["<image>", *(TILE_TOKENS if kind == "smolvlm" else ())])
    tokenizer.save(str(path / "tokenizer.json"))
    values = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[0]}
    if template:
        values["chat_template"] = LLAVA_TEMPLATE
    (path / "tokenizer_config.json").write_text(json.dumps(values))
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR[kind]))
    return path
