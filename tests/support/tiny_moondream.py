"""A tiny moondream: a checkpoint as it was published, and the same model put together from transformers' modules.

The names and the order of the numbers are written down here a second time, from the published program's own modules;
nothing of export/families/moondream.py is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_checkpoints import SPECIAL, tiny_tokenizer
from tiny_vision import TEXT, varied
from transformers import PhiConfig, PhiForCausalLM, SiglipVisionConfig, SiglipVisionModel

SEES = 'class MLP:\n    act = nn.GELU(approximate="tanh")\n'
SPEAKS = 'prompt = f"<image>\\n\\n{chat_history}Question: {question}\\n\\nAnswer:"\n'
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 16,
         "image_size": 28, "patch_size": 7}  # fmt: skip


class TinyMoondream(torch.nn.Module):
    """SigLIP without its head, two linears, and Phi."""

    def __init__(self, activation: str = "gelu_pytorch_tanh", eps: float = 1e-5) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = SiglipVisionConfig(**SIZES, hidden_act=activation, layer_norm_eps=eps, vision_use_head=False)
        self.vision = SiglipVisionModel(sizes)
        act = torch.nn.GELU(approximate="tanh" if activation == "gelu_pytorch_tanh" else "none")
        self.projector = torch.nn.Sequential(torch.nn.Linear(64, 256), act, torch.nn.Linear(256, 64))
        self.text = PhiForCausalLM(PhiConfig(**TEXT, partial_rotary_factor=0.5))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """[pictures, rows, 64]."""
        return self.projector(self.vision(pixel_values=pixels).last_hidden_state)

    def logits(self, ids: list[int], placeholder: int, pixels: torch.Tensor | None = None) -> Any:
        """[len(ids), vocab]; the features go where the placeholders are."""
        rows = self.text.get_input_embeddings()(torch.tensor([ids]))
        if pixels is not None:
            rows[0, torch.tensor(ids) == placeholder] = self.features(pixels).flatten(0, 1)
        return self.text(inputs_embeds=rows).logits[0].numpy()


def tiny_moondream(**options: Any) -> TinyMoondream:
    """In evaluation mode, with biases and norms that matter."""
    return varied(TinyMoondream(**options))


def _published(model: TinyMoondream) -> dict[str, torch.Tensor]:
    state, found = model.state_dict(), {}
    seen = {k.removeprefix("vision.").removeprefix("vision_model."): v for k, v in state.items() if k[:7] == "vision."}
    visual = "vision_encoder.encoder.model.visual"
    for kind in ("weight", "bias"):
        found[f"{visual}.patch_embed.linear.{kind}"] = seen[f"embeddings.patch_embedding.{kind}"].flatten(
            1 if kind == "weight" else 0
        )
        found[f"{visual}.norm.{kind}"] = seen[f"post_layernorm.{kind}"]
        for i in range(SIZES["num_hidden_layers"]):
            there, here = f"encoder.layers.{i}", f"{visual}.blocks.{i}"
            qkv = [seen[f"{there}.self_attn.{n}_proj.{kind}"] for n in "qkv"]
            found[f"{here}.attn.qkv.{kind}"] = torch.cat(qkv)
            found[f"{here}.attn.proj.{kind}"] = seen[f"{there}.self_attn.out_proj.{kind}"]
            for a, b in (
                ("norm1", "layer_norm1"),
                ("norm2", "layer_norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                found[f"{here}.{a}.{kind}"] = seen[f"{there}.{b}.{kind}"]
        for i, name in enumerate(("fc1", "fc2")):
            found[f"vision_encoder.projection.mlp.{name}.{kind}"] = state[f"projector.{2 * i}.{kind}"]
        for i in range(TEXT["num_hidden_layers"]):
            there, here = f"text.model.layers.{i}", f"text_model.transformer.h.{i}"
            qkv = [state[f"{there}.self_attn.{n}_proj.{kind}"] for n in "qkv"]
            found[f"{here}.mixer.Wqkv.{kind}"] = torch.cat(qkv)
            for a, b in (
                ("ln", "input_layernorm"),
                ("mixer.out_proj", "self_attn.dense"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                found[f"{here}.{a}.{kind}"] = state[f"{there}.{b}.{kind}"]
        found[f"text_model.lm_head.ln.{kind}"] = state[f"text.model.final_layernorm.{kind}"]
        found[f"text_model.lm_head.linear.{kind}"] = state[f"text.lm_head.{kind}"]
    found[f"{visual}.pos_embed"] = seen["embeddings.position_embedding.weight"][None]
    found["text_model.transformer.embd.wte.weight"] = state["text.model.embed_tokens.weight"]
    return {name: values.contiguous() for name, values in found.items()}


def moondream_folder(path: Path, model: TinyMoondream, *, first: bool = False, program: bool = False) -> Path:
    """Saves it as published: with `first` as moondream1 was, else as 2024-05-08; `program` puts its text beside it."""
    path.mkdir(parents=True)
    save_file(_published(model), path / "model.safetensors", metadata={"format": "pt"})
    sizes = {"vocab_size": TEXT["vocab_size"]}
    old = {"model_type": "phi-msft", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128, "n_positions": 512,
           "rotary_dim": 8, **sizes}  # fmt: skip
    new = {"model_type": "phi", **{k: v for k, v in TEXT.items() if k != "initializer_range"}}
    texts = {"phi_config": old} if first else {"phi_config" if program else "text_config": new}
    config = {"architectures": ["Moondream"], "model_type": "moondream1", "torch_dtype": "float16",
              "vision_config": SIZES, "auto_map": {"AutoModelForCausalLM": "moondream.Moondream"}, **texts}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    tiny_tokenizer().save(str(path / "tokenizer.json"))
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[0]}
    (path / "tokenizer_config.json").write_text(json.dumps(names))
    if program:
        (path / "vision_encoder.py").write_text(SEES)
        (path / "moondream.py").write_text(SPEAKS)
    return path
