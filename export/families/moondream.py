"""moondream: SigLIP at 378 x 378, a projector of two linears, and Phi-1.5. moondream1, and moondream2 until 2024-05-08.

Special about it: nothing but the text model's configuration is in config.json, so that the tower's shape is here. q, k
and v are one tensor, in the tower and in the text model. Its own program made the prompts, without a template, and
changed with the revisions while config.json did not: which it was is read, as text, from the program where it lies
beside the weights. It is never run.

Not covered: revisions from 2024-05-20 on, which look at a picture in pieces as well, and from 2025 on, another model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.moondream_reference import STAND
from satchel.export.families.multimodal import (
    MultimodalFamily,
    Named,
    Tower,
    Words,
    as_stored,
    layers_of,
    sub_configuration,
    tower,
)
from satchel.export.families.options import count, refuse_unknown, refuse_unsupported
from satchel.export.vision.config import Activation, VisionConfig
from satchel.runtime.errors import CheckpointError

READ = (
    "model_type", "architectures", "auto_map", "phi_config", "text_config", "vision_config", "_revision", "hidden_size",
)  # fmt: skip
TOWER = Tower(
    sizes={
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "num_channels": 3, "image_size": 378, "patch_size": 14,
    },
    eps=1e-6, activation="gelu", class_token=False,
)  # fmt: skip
"""Of the published program (timm's vit_so400m_patch14_siglip_384). Checkpoints of another shape say so in
`vision_config`, which published ones do not have."""

TEXT = {
    "model_type": "phi", "architectures": ["PhiForCausalLM"], "vocab_size": 51200, "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32, "hidden_act": "gelu_new",
    "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5,
    "tie_word_embeddings": False, "bos_token_id": 50256, "eos_token_id": 50256,
}  # fmt: skip
"""The published program's defaults, since config.json has only what differs."""
OLD_NAMES = {
    "n_positions": "max_position_embeddings", "n_embd": "hidden_size", "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size", "n_head": "num_attention_heads", "n_head_kv": "num_key_value_heads",
    "activation_function": "hidden_act", "layer_norm_epsilon": "layer_norm_eps",
}  # fmt: skip
"""Of "phi-msft", as Phi was before transformers had it -> transformers' names."""
DROPPED = (
    "rotary_dim", "flash_attn", "flash_rotary", "fused_dense", "attn_pdrop", "pad_vocab_size_multiple",
    "gradient_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class Revision:
    """What changed with revisions.

    Attributes:
        activation, eps: of the tower, and the activation of the projector.
        tagged: whether the words <image> and </image> stand around a picture's rows, as text.
        ends: text, any token of which ends an answer; "" where it is the tokenizer's eos.
        answer: what follows a question.
    """

    activation: Activation
    eps: float
    tagged: bool
    ends: str
    answer: str


FIRST = Revision("gelu", 1e-6, True, "<END>", "Answer: ")
"""moondream1, and moondream2 of 2024-03-04."""
LAST = Revision("gelu_tanh", 1e-5, False, "", "Answer:")
"""moondream2 of 2024-05-08, and of 2024-04-02."""


def settle(whole: Checkpoint) -> dict[str, Any]:
    """config.json, and in it the revision.

    Raises:
        CheckpointError: a revision that is not covered, or nothing that tells it.
    """
    fused = "vision_encoder.projection.mlp.fc1.weight"
    if fused in whole.names():
        rows = vision(whole.config).hidden_size
        if whole.shape(fused)[1] == 2 * rows:
            raise CheckpointError(
                "this revision of moondream sees pictures in pieces, which is not supported", got="2024-05-20 or later",
                wanted="2024-05-08 or before, or moondream1",
            )  # fmt: skip
    return {**whole.config, "_revision": asdict(_revision(whole))}


def _revision(whole: Checkpoint) -> Revision:
    sees, speaks = (_text(whole, name) for name in ("vision_encoder.py", "moondream.py"))
    if sees and speaks:
        return Revision(
            "gelu_tanh" if 'approximate="tanh"' in sees else "gelu",
            1e-6 if "timm" in sees else 1e-5,
            "</image>" in speaks,
            "<END>" if "<END>" in speaks else "",
            "Answer: " if 'Answer: "' in speaks else "Answer:",
        )
    if _text_part(whole.config).get("model_type") == "phi-msft":
        return FIRST
    if "text_config" in whole.config:
        return LAST
    raise CheckpointError(
        "which revision of moondream this is cannot be told", got="config.json alone",
        wanted="vision_encoder.py and moondream.py beside it, which are read as text and never run",
        hint="take them from the same revision, or take revision 2024-05-08",
    )  # fmt: skip


def _text(whole: Checkpoint, name: str) -> str:
    path = whole.path / name
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    return sub_configuration(config, "text_config" if "text_config" in config else "phi_config")


def text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's configuration, as transformers' Phi has it.

    Raises:
        CheckpointError: it is another model, or has an option that is not supported.
    """
    given = _text_part(config)
    if given.get("model_type", "phi") not in ("phi", "phi-msft"):
        raise CheckpointError("this text model is not supported", got=given.get("model_type"), wanted="phi")
    found = {OLD_NAMES.get(key, key): v for key, v in given.items() if key not in DROPPED and v is not None}
    whole = {**TEXT, **found, "model_type": "phi", "architectures": TEXT["architectures"]}
    hidden, heads = count(whole, "hidden_size"), count(whole, "num_attention_heads")
    if whole.get("num_key_value_heads", heads) != heads:
        raise CheckpointError("a moondream of several queries a key", got=whole["num_key_value_heads"], wanted=heads)
    if "intermediate_size" not in found:
        whole["intermediate_size"] = 4 * hidden
    if given.get("model_type") == "phi-msft":  # which pads the vocabulary
        multiple = given.get("pad_vocab_size_multiple", 64)
        if isinstance(multiple, bool) or not isinstance(multiple, int) or not 1 <= multiple <= 1 << 16:
            raise CheckpointError("pad_vocab_size_multiple is not usable", got=repr(multiple)[:40], wanted="1 to 65536")
        whole["vocab_size"] = -(-count(whole, "vocab_size") // multiple) * multiple
    if "rotary_dim" in given or given.get("model_type") == "phi-msft":
        whole["partial_rotary_factor"] = min(given.get("rotary_dim") or 32, hidden // heads) / (hidden // heads)
    for key in ("bos_token_id", "eos_token_id"):
        if key not in found and TEXT[key] >= whole["vocab_size"]:
            whole[key] = None
    return whole


def vision(config: Mapping[str, Any]) -> VisionConfig:
    """The tower and the projector.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, "Moondream")
    refuse_unknown(config, READ)
    revision = Revision(**config["_revision"]) if "_revision" in config else LAST
    given = sub_configuration(config, "vision_config") if "vision_config" in config else {}
    shape = tower(given, TOWER) | {"activation": revision.activation, "norm_eps": revision.eps}
    hidden = count(text(config), "hidden_size")
    return VisionConfig(
        family="moondream1",
        layers=layers_of(given, TOWER),
        keeps_class=False,
        patch_bias=True,
        pre_norm=False,
        post_norm=True,
        shuffle=1,
        projector=(4 * hidden, hidden),
        projector_bias=True,
        projector_activation=revision.activation,
        **shape,
    )


def placeholder(config: Mapping[str, Any]) -> int:
    """A row of the vocabulary that no token has; with a tokenizer the first such (see vision/prompts.py)."""
    return count(text(config), "vocab_size") - 1


TEXT_NAMES = {
    "transformer.embd.wte": "model.embed_tokens", "lm_head.ln": "model.final_layernorm", "lm_head.linear": "lm_head",
}  # fmt: skip
LAYER_NAMES = {
    "ln": "input_layernorm", "mixer.out_proj": "self_attn.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip
BLOCK_NAMES = {"norm1": "norm1", "norm2": "norm2", "attn.proj": "out_proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
LAYER = re.compile(r"(?:transformer\.h|blocks)\.(\d+)\.(.+)")
TOWER_NAMES = {
    "patch_embed.linear": "vision.patch_embedding", "norm": "vision.post_norm",
    "projection.mlp.fc1": "vision.projector.0", "projection.mlp.fc2": "vision.projector.1",
}  # fmt: skip


def name(config: VisionConfig, stored: str) -> Named:
    """What a stored tensor is."""
    base, _, last = stored.rpartition(".")
    if stored.startswith("text_model."):
        return None if last == "inv_freq" else ("text", _in_text(base.removeprefix("text_model."), last))
    if not stored.startswith("vision_encoder."):
        raise KeyError(stored)
    rest = stored.removeprefix("vision_encoder.").removeprefix("encoder.model.visual.")
    return "vision", "vision.position_embedding" if rest == "pos_embed" else _in_tower(rest.rpartition(".")[0], last)


def _in_text(base: str, last: str) -> str | tuple[str, ...]:
    if not (found := LAYER.fullmatch(base)):
        return f"{TEXT_NAMES[base]}.{last}"
    place, inner = f"model.layers.{found[1]}", found[2]
    if inner == "mixer.Wqkv":
        return tuple(f"{place}.self_attn.{n}_proj.{last}" for n in "qkv")
    return f"{place}.{LAYER_NAMES[inner]}.{last}"


def _in_tower(base: str, last: str) -> str | tuple[str, ...]:
    ending = "" if last == "weight" else f".{last}"
    if not (found := LAYER.fullmatch(base)):
        return TOWER_NAMES[base] + ending
    place, inner = f"vision.layers.{found[1]}", found[2]
    if inner == "attn.qkv":
        return tuple(f"{place}.{n}_proj{ending}" for n in "qkv")
    return f"{place}.{BLOCK_NAMES[inner]}{ending}"


TEMPLATE = """\
{{ bos_token }}{% for m in messages %}\
{% if m['content'] is string %}{% set parts = [{'type': 'text', 'text': m['content']}] %}\
{% else %}{% set parts = m['content'] %}{% endif %}\
{% for c in parts if c['type'] == 'image' %}{{ PLACEHOLDER + '\\n\\n' }}{% endfor %}\
{% if m['role'] == 'user' %}{{ 'Question: ' }}{% elif m['role'] != 'assistant' %}\
{{ raise_exception('this model knows the roles user and assistant') }}{% endif %}\
{% for c in parts if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{{ '\\n\\n' }}\
{% if m['role'] == 'user' %}{{ ANSWER if loop.last else 'Answer: ' }}{% endif %}{% endfor %}"""
"""A conversation as the published program writes it: questions and answers, an empty line after each."""


def words(config: Mapping[str, Any]) -> Words:
    """Its prompts."""
    revision = Revision(**config["_revision"]) if "_revision" in config else LAST
    mark = "<|image|>"
    return Words(
        placeholder=mark,
        single="<image>" if revision.tagged else "",
        end="</image>" if revision.tagged else "",
        prompt="{image}\n\nQuestion: {prompt}\n\n" + revision.answer,
        template=TEMPLATE.replace("PLACEHOLDER", repr(mark)).replace("ANSWER", repr(revision.answer)),
        stops=revision.ends,
        bos=True,
    )


PREPROCESSOR = {
    "image_processor_type": "SiglipImageProcessor", "size": {"height": 378, "width": 378}, "resample": 3,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255,
}  # fmt: skip
"""What the published program does to a picture."""


def preprocessor(config: VisionConfig) -> dict[str, Any]:
    """The same as preprocessor_config.json would say it, which no such checkpoint has."""
    return {**PREPROCESSOR, "size": {"height": config.image_size, "width": config.image_size}}


MOONDREAM = MultimodalFamily(
    model_type="moondream1",
    text_types=("phi",),
    text=text,
    vision=vision,
    placeholder=placeholder,
    name=name,
    restore=as_stored,
    settle=settle,
    words=words,
    preprocessor=preprocessor,
    stand=STAND,
)
