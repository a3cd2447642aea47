"""What families that see share: the text model is one of registry.py's, under names of its own in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.options import HARMLESS, LIMITS, epsilon, refuse_unknown
from satchel.export.vision.config import Activation, VisionConfig
from satchel.runtime.errors import CheckpointError

Named = tuple[str, str | tuple[str, ...]] | None
"""Of a stored tensor: ("text", name in a checkpoint of the text model alone), ("vision", canonical name), or None for
one that carries nothing. Several names are of equal numbers of its rows, one under the other."""


@dataclass(frozen=True)
class Words:
    """How a family speaks of pictures where its tokenizer and template do not.

    Attributes:
        placeholder: of a picture; it becomes a token of the bundle's tokenizer.
        single, end: text before a picture's rows, and after them.
        prompt: a plain prompt, with {image} and {prompt}.
        template: chat template, in Jinja.
        stops: text, any token of which ends an answer; "" for none.
        bos: whether every prompt begins with bos.
    """

    placeholder: str
    single: str
    end: str
    prompt: str
    template: str
    stops: str
    bos: bool


@dataclass(frozen=True)
class VisionStand:
    """The reference of a family that transformers does not have, put together from models that it has.

    Attributes:
        build: (text model's configuration, ours of the tower) -> a torch module that answers to `get_image_features`,
            `get_input_embeddings` and `get_output_embeddings`, and calls its text model; it is made in
            accelerate's init_empty_weights.
        name: as MultimodalFamily.name, of its parameters.
    """

    build: Callable[[Mapping[str, Any], VisionConfig], Any]
    name: Callable[[VisionConfig, str], Named]


@dataclass(frozen=True)
class MultimodalFamily:
    """One family of models that see.

    Attributes:
        model_type: of config.json.
        text_types: `model_type` of text models that it is known to have.
        text: configuration -> that of the text model alone, as registry.family_of takes it.
        vision: configuration -> VisionConfig.
        placeholder: configuration -> id of the placeholder of pictures.
        name: (config, stored name) -> what it is, and what it is called there; raises KeyError for an unknown one.
        restore: (config, canonical name, values as stored) -> values as the encoder wants them.
        head_bias: whether the text model's head has the bias that it has alone.
        settle: checkpoint -> configuration, of a family whose config.json does not say all.
        words: configuration -> Words, of a family whose tokenizer has no placeholder.
        preprocessor: what preprocessor_config.json would say, of a family whose checkpoints have none.
        stand: of a family that transformers does not have.
    """

    model_type: str
    text_types: tuple[str, ...]
    text: Callable[[Mapping[str, Any]], dict[str, Any]]
    vision: Callable[[Mapping[str, Any]], VisionConfig]
    placeholder: Callable[[Mapping[str, Any]], int]
    name: Callable[[VisionConfig, str], Named]
    restore: Callable[[VisionConfig, str, np.ndarray], np.ndarray]
    head_bias: bool = True
    settle: Callable[[Checkpoint], dict[str, Any]] | None = None
    words: Callable[[Mapping[str, Any]], Words] | None = None
    preprocessor: Callable[[VisionConfig], dict[str, Any]] | None = None
    stand: VisionStand | None = None


ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

LLAMA_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
}  # fmt: skip
PHI_DEFAULTS = {
    "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "max_position_embeddings": 2048,
}  # fmt: skip
TEXT_DEFAULTS: dict[str, dict[str, Any]] = {"llama": LLAMA_DEFAULTS, "phi": PHI_DEFAULTS}
"""transformers' own, since such checkpoints leave out what equals them; a text model on its own does not."""

ARCHITECTURES = {"llama": "LlamaForCausalLM", "phi": "PhiForCausalLM"}


def text_configuration(
    config: Mapping[str, Any], types: tuple[str, ...], dropped: Iterable[str] = ()
) -> dict[str, Any]:
    """The text model's configuration, complete, and as if it were on its own.

    Args:
        config: of the whole model.
        types: of text models that are known to work.
        dropped: keys of it that say nothing of the network.

    Raises:
        CheckpointError: the text model is another.
    """
    text = sub_configuration(config, "text_config")
    kind = text.get("model_type", "llama")
    if kind not in types:
        wanted = f"a text model of {', '.join(types)}"
        raise CheckpointError(f"a {config.get('model_type')} model with this text model", got=kind, wanted=wanted)
    tied = bool(config.get("tie_word_embeddings")) or bool(text.get("tie_word_embeddings"))
    kept = {k: v for k, v in text.items() if k not in dropped}
    return {**TEXT_DEFAULTS[kind], **kept, "model_type": kind, "architectures": [ARCHITECTURES[kind]],
            "tie_word_embeddings": tied}  # fmt: skip


def sub_configuration(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object within the configuration; CheckpointError where it is none."""
    value = config.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="an object")
    return value


@dataclass(frozen=True)
class Tower:
    """What a kind of vision tower is like, beside its sizes: transformers' defaults, and what follows from the kind."""

    sizes: Mapping[str, int]
    activation: str
    eps: float
    class_token: bool


CLIP = Tower(
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "image_size": 224, "patch_size": 32, "num_channels": 3},
    "quick_gelu", 1e-5, True,
)  # fmt: skip
SIGLIP = Tower(
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "image_size": 224, "patch_size": 16, "num_channels": 3},
    "gelu_pytorch_tanh", 1e-6, False,
)  # fmt: skip
IDEFICS3 = Tower(
    {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
     "image_size": 224, "patch_size": 32, "num_channels": 3},
    "gelu_pytorch_tanh", 1e-6, False,
)  # fmt: skip

VISION_READ = (
    "model_type", "architectures", "hidden_act", "layer_norm_eps", "projection_dim", "vocab_size", "initializer_factor",
    "vision_use_head", *CLIP.sizes,
)  # fmt: skip
"""Of a vision tower; projection_dim and vocab_size are of heads that are not part of it."""

VISION_LIMITS = {**LIMITS, "image_size": 1 << 13, "patch_size": 1 << 10, "num_channels": 3}


def tower(config: Mapping[str, Any], kind: Tower) -> dict[str, Any]:
    """Arguments of VisionConfig that every tower has.

    Raises:
        CheckpointError: an option is unknown or out of range; it is named.
    """
    refuse_unknown({k: v for k, v in config.items() if k not in HARMLESS}, VISION_READ)
    sizes = {key: _size(config, key, default) for key, default in kind.sizes.items()}
    if sizes["num_channels"] != 3 or sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise CheckpointError("a vision tower of this shape is not supported", got=sizes)
    if sizes["patch_size"] > sizes["image_size"]:
        raise CheckpointError("a patch is larger than the picture", got=sizes["patch_size"], wanted=sizes["image_size"])
    return {
        "image_size": sizes["image_size"], "patch_size": sizes["patch_size"], "channels": sizes["num_channels"],
        "hidden_size": sizes["hidden_size"], "heads": sizes["num_attention_heads"],
        "intermediate_size": sizes["intermediate_size"], "norm_eps": epsilon(config, "layer_norm_eps", kind.eps),
        "activation": activation(config, "hidden_act", kind.activation), "class_token": kind.class_token,
    }  # fmt: skip


def layers_of(config: Mapping[str, Any], kind: Tower) -> int:
    """How many layers a tower has, used or not."""
    return _size(config, "num_hidden_layers", kind.sizes["num_hidden_layers"])


def activation(config: Mapping[str, Any], key: str, default: str) -> Activation:
    """An activation by transformers' name."""
    value = config.get(key, default)
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise CheckpointError(
            f"the activation '{key}' is not supported", got=repr(value)[:80], wanted=list(ACTIVATIONS)
        )
    return ACTIVATIONS[value]


def placeholder(config: Mapping[str, Any], keys: tuple[str, ...], default: int) -> int:
    """Id of the placeholder of pictures."""
    value = next((config[key] for key in keys if config.get(key) is not None), default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CheckpointError(f"the configuration's '{keys[0]}' is not usable", got=repr(value)[:80], wanted="an id")
    return value


def tower_names(config: VisionConfig) -> dict[str, str]:
    """Name of a tensor of the tower, as transformers' CLIP and SigLIP share it -> canonical name."""
    pairs = {
        "embeddings.patch_embedding": "patch_embedding", "pre_layrnorm": "pre_norm", "post_layernorm": "post_norm",
    }  # fmt: skip
    for i in range(config.layers):
        there, here = f"encoder.layers.{i}", f"layers.{i}"
        pairs |= {f"{there}.self_attn.{n}": f"{here}.{n}" for n in ("q_proj", "k_proj", "v_proj", "out_proj")}
        pairs |= {f"{there}.mlp.{n}": f"{here}.{n}" for n in ("fc1", "fc2")}
        pairs |= {f"{there}.layer_norm{n}": f"{here}.norm{n}" for n in (1, 2)}
    names = {f"{there}.weight": f"vision.{here}" for there, here in pairs.items()}
    names |= {f"{there}.bias": f"vision.{here}.bias" for there, here in pairs.items()}
    names["embeddings.class_embedding"] = "vision.class_embedding"
    names["embeddings.position_embedding.weight"] = "vision.position_embedding"
    wanted = {*config.matrix_shapes(), *config.vector_shapes()}
    return {there: here for there, here in names.items() if here in wanted}


def as_stored(config: VisionConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Nothing to restore."""
    return values


def _size(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= VISION_LIMITS[key]:
        wanted = f"an integer from 1 to {VISION_LIMITS[key]}"
        raise CheckpointError(f"the vision tower's '{key}' is not usable", got=repr(value)[:80], wanted=wanted)
    return value
