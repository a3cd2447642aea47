"""moondream put together from transformers' own SigLIP and Phi, since transformers does not have it: the reference."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from satchel.export.families.multimodal import Named, VisionStand, tower_names
from satchel.export.vision.config import VisionConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
TEXT, TOWER, PROJECTOR = "text.", "vision.", "projector."


def build(text: Mapping[str, Any], vision: VisionConfig) -> Any:
    """The module; see VisionStand."""
    import torch
    from transformers import PhiConfig, PhiForCausalLM, SiglipVisionConfig, SiglipVisionModel

    activation = ACTIVATIONS[vision.activation]
    sizes = SiglipVisionConfig(
        hidden_size=vision.hidden_size, intermediate_size=vision.intermediate_size, num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads, image_size=vision.image_size, patch_size=vision.patch_size,
        hidden_act=activation, layer_norm_eps=vision.norm_eps, vision_use_head=False,
    )  # fmt: skip
    inner, outer = vision.projector

    class Moondream(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = SiglipVisionModel._from_config(sizes, dtype=torch.float32)
            shape = torch.nn.GELU(approximate="tanh" if vision.activation == "gelu_tanh" else "none")
            self.projector = torch.nn.Sequential(
                torch.nn.Linear(vision.hidden_size, inner), shape, torch.nn.Linear(inner, outer)
            )
            self.text = PhiForCausalLM._from_config(PhiConfig(**text), dtype=torch.float32)

        def get_input_embeddings(self) -> Any:
            return self.text.get_input_embeddings()

        def get_output_embeddings(self) -> Any:
            return self.text.get_output_embeddings()

        def get_image_features(self, pixels: Any) -> Any:
            rows = self.projector(self.vision(pixel_values=pixels).last_hidden_state)
            return SimpleNamespace(pooler_output=list(rows))

        def forward(self, **given: Any) -> Any:
            return self.text(**given)

    return Moondream()


def name(config: VisionConfig, parameter: str) -> Named:
    """What a parameter of the module is."""
    if parameter.startswith(TEXT):
        return "text", parameter.removeprefix(TEXT)
    if parameter.startswith(PROJECTOR):
        number, _, last = parameter.removeprefix(PROJECTOR).partition(".")
        base = f"vision.projector.{int(number) // 2}"
        return "vision", base if last == "weight" else f"{base}.{last}"
    return "vision", tower_names(config)[parameter.removeprefix(TOWER).removeprefix("vision_model.")]


STAND = VisionStand(build, name)
