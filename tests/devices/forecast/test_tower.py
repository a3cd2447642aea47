"""What the part of a model that sees adds to a forecast and a plan, against transformers' own counts."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from satchel.devices.forecast import Request, forecast
from satchel.devices.planner import make_plan
from satchel.devices.profile import load_device
from satchel.export.shape import shape_of
from satchel.export.vision.weights import vision_bytes

PHONE = load_device("pixel-9")
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
PHI = {
    "model_type": "phi", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "vocab_size": 51200, "max_position_embeddings": 2048,
}  # fmt: skip
LLAVA = {"model_type": "llava", "vision_config": CLIP, "text_config": PHI, "image_token_index": 50295}
SMOL = {
    "model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 4,
    "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                      "num_attention_heads": 12, "image_size": 512, "patch_size": 16},
    "text_config": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280,
                    "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "tie_word_embeddings": True,
}  # fmt: skip
TILES = {
    "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 2048}, "do_image_splitting": True,
    "max_image_size": {"longest_edge": 512},
}  # fmt: skip


def folder(path, config, images=None):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if images:
        (path / "preprocessor_config.json").write_text(json.dumps(images))
    return path


@pytest.mark.parametrize(("config", "unused"), [(LLAVA, "vision_tower.encoder.layers.23."), (SMOL, "?")])
def test_parameters_are_those_of_transformers(tmp_path, config, unused):
    """But for layers behind the one whose features are taken."""
    shape, described = shape_of(folder(tmp_path / "m", config))
    given = {k: v for k, v in config.items() if k != "model_type"}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(config["model_type"], **given))
    named = {n.replace("vision_model.", ""): p.numel() for n, p in model.named_parameters()}
    counted = sum(n for name, n in named.items() if unused not in name and "post_layernorm" not in name)
    counted += sum(n for name, n in named.items() if "post_layernorm" in name and config is SMOL)
    assert described.family == config["model_type"]
    assert shape.all_parameters == counted


def test_sizes_and_memory(tmp_path):
    """300 million weights of a tower are in the file, held in memory, and decide whether it fits."""
    shape, _ = shape_of(folder(tmp_path / "m", LLAVA))
    blind = dataclasses.replace(shape, tower=None)
    for device, form, low, high in (
        ("pixel-9", "onnx", 0.7, 0.85), ("pixel-9", "executorch", 1.0, 1.1), ("iphone-15-pro", "coreml", 0.7, 0.85),
    ):  # fmt: skip
        asked = Request(format=form, weights="palette")
        seeing, alone = (forecast(load_device(device), s, asked) for s in (shape, blind))
        added = seeing.storage.bundle - alone.storage.bundle
        assert low < added / shape.tower.parameters < high, form
        lines = {line.name: line.bytes for line in seeing.memory.lines}
        assert lines["vision encoder"] >= 0.7 * shape.tower.parameters
        assert lines["a picture"] > 577 * 4096 * 2
        assert seeing.memory.needed - alone.memory.needed >= 0.7 * shape.tower.parameters
    between = (alone.memory.needed + seeing.memory.needed) / 2
    phone = dataclasses.replace(
        load_device("iphone-15-pro"), app_memory_gb=between / 1e9, app_memory_entitled_gb=between / 1e9
    )
    verdicts = [forecast(phone, s, dataclasses.replace(asked, context=1024)).fits for s in (shape, blind)]
    assert verdicts == [False, True]


def test_a_picture_fits_the_context(tmp_path):
    """17 tiles of 64 rows need more than the usual 1024 tokens; one picture of 576 does not."""
    for name, config, images, tokens in (("a", SMOL, TILES, 2048), ("b", SMOL, None, 1024), ("c", LLAVA, None, 1024)):
        shape, _ = shape_of(folder(tmp_path / name, config, images))
        assert make_plan(PHONE, shape).context_length == tokens
        assert shape.tower.tiles == (17 if images else 1)


def test_the_forecast_is_what_a_budget_leaves_room_for(tmp_path):
    """Two sums of the same bytes: the forecast's, and that of `--max-size`, which is rather too large."""
    from satchel.export.families.registry import multimodal_family
    from satchel.export.palettize.spec import Recipe

    shape, _ = shape_of(folder(tmp_path / "m", LLAVA))
    asked = Request(format="onnx", weights="palette", bits=4)
    seeing, alone = (forecast(PHONE, s, asked).storage.bundle for s in (shape, dataclasses.replace(shape, tower=None)))
    config = multimodal_family(LLAVA).vision(LLAVA)
    left = vision_bytes(config, Recipe(widths=(4,)), shown=576)
    assert seeing - alone <= left <= 1.1 * (seeing - alone)
