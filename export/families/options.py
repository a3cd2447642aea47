"""Reading a Hugging Face configuration: what is structural is read or refused, never passed over.

And what else families share: tables of tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from satchel.export.families.base import Activation, DecoderConfig, Layer, Place, Rows
from satchel.runtime.errors import CheckpointError

# The largest values that are taken seriously; beyond them a configuration is damaged or hostile.
LIMITS = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 4096,
    "max_position_embeddings": 1 << 31,
    "original_max_position_embeddings": 1 << 31,
    "sliding_window": 1 << 31,
    "max_window_layers": 1024,
    "no_rope_layer_interval": 1024,
    "sliding_window_pattern": 1024,
    "blocksparse_block_size": 1 << 31,
    "blocksparse_num_local_blocks": 1 << 31,
    "blocksparse_vert_stride": 1 << 31,
}

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

HARMLESS = frozenset({
    "_name_or_path", "_model_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache",
    "initializer_range",
    "attention_dropout", "hidden_dropout", "pretraining_tp", "pad_token_id", "unk_token_id", "sep_token_id",
    "cls_token_id", "decoder_start_token_id", "max_length", "min_length", "max_new_tokens", "do_sample",
    "num_beams", "num_beam_groups", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "diversity_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "early_stopping", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
    "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix",
    "torchscript", "tf_legacy_loss", "use_bfloat16", "chunk_size_feed_forward", "is_decoder", "is_encoder_decoder",
    "gradient_checkpointing", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset",
    "_attn_implementation_internal", "_commit_hash", "transformers.js_config", "unsloth_fixed", "unsloth_version",
    "model_name",
})  # fmt: skip
"""Keys that say nothing about what the network computes: training, sampling, bookkeeping."""


class Heads(NamedTuple):
    """How many heads of queries, of keys and values, and how wide they are."""

    heads: int
    kv_heads: int
    head_dim: int


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer; `default` where the key is missing or null, which raises if there is no default."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LIMITS[key]:
        raise CheckpointError(
            f"the configuration's '{key}' is not usable",
            got=repr(value)[:80],
            wanted=f"an integer from 1 to {LIMITS[key]}",
        )
    return value


def flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """A boolean; `default` where the key is missing or null."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise CheckpointError(
            f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="true or false"
        )
    return value


def token_ids(config: Mapping[str, Any], key: str, vocab_size: int) -> tuple[int, ...]:
    """Token ids, one or a list; () where the key is missing or null."""
    value = config.get(key)
    values = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < vocab_size for v in values):
        raise CheckpointError(
            f"the configuration's '{key}' is outside the vocabulary",
            got=repr(value)[:80],
            wanted=f"0..{vocab_size - 1}",
        )
    return tuple(values)


def epsilon(config: Mapping[str, Any], key: str, default: float) -> float:
    """What a norm adds to the variance, 0 to 1; `default` where the key is missing."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 or math.isnan(value):
        raise CheckpointError(f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="0 to 1")
    return float(value)


def positive(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number above 0; `default` where the key is missing."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(
            f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="a number above 0"
        )
    return float(value)


def activation(config: Mapping[str, Any], default: str) -> Activation:
    """`hidden_act`; `default` where the key is missing."""
    value = config.get("hidden_act", default)
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise CheckpointError(
            "the activation is not supported",
            got=repr(value)[:80],
            wanted=f"hidden_act one of {', '.join(ACTIVATIONS)}",
        )
    return ACTIVATIONS[value]


def heads(config: Mapping[str, Any], kv_default: int | None = None, dim_default: int | None = None) -> Heads:
    """Counts of heads, which must divide; defaults where the keys are missing, those of most families for None."""
    hidden, count_q = count(config, "hidden_size"), count(config, "num_attention_heads")
    kv = count(config, "num_key_value_heads", kv_default or count_q)
    dim = count(config, "head_dim", dim_default or hidden // count_q)
    if count_q % kv or (config.get("head_dim") is None and dim_default is None and hidden % count_q):
        raise CheckpointError(
            "the heads do not divide evenly", got=f"hidden_size {hidden}, {count_q} heads, {kv} key-value heads"
        )
    return Heads(count_q, kv, dim)


def window(config: Mapping[str, Any], default: int | None = None) -> int:
    """`sliding_window`, 0 for null; `default` where the key is missing."""
    if config.get("sliding_window", default) is None:
        return 0
    return count({"sliding_window": default, **config}, "sliding_window")


def layer_types(config: Mapping[str, Any], default: Sequence[bool]) -> list[bool]:
    """For each layer whether its attention has a window: `layer_types`, or a default where the key is missing."""
    types, known = config.get("layer_types"), ("full_attention", "sliding_attention")
    if types is None:
        return list(default)
    if not isinstance(types, list) or len(types) != len(default) or any(t not in known for t in types):
        raise CheckpointError(
            "the configuration's 'layer_types' is not usable",
            got=repr(types)[:120],
            wanted=f"{len(default)} of {' or '.join(known)}",
        )
    return [t == "sliding_attention" for t in types]


def common(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every family says in the same keys: fields of a DecoderConfig."""
    vocab = count(config, "vocab_size")
    bos = token_ids(config, "bos_token_id", vocab)
    return {
        "vocab_size": vocab,
        "hidden_size": count(config, "hidden_size"),
        "layers": count(config, "num_hidden_layers"),
        "intermediate_size": count(config, "intermediate_size"),
        "bos_token_id": bos[0] if bos else None,
        "eos_token_ids": token_ids(config, "eos_token_id", vocab),
    }


def alike(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Options of layers as DecoderConfig has them: none where all have what the first has."""
    return () if len(set(layers)) == 1 else tuple(layers)


WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
"""Keys that `windowed` reads."""


def windowed(decoder: DecoderConfig, config: Mapping[str, Any]) -> DecoderConfig:
    """With windows as Qwen has them."""
    windows = _windows(config, decoder.layers)
    layers = [replace(layer, window=size) for layer, size in zip(decoder.each_layer(), windows, strict=True)]
    return replace(decoder, window=windows[0], layer_options=alike(layers))


def _windows(config: Mapping[str, Any], layers: int) -> list[int]:
    """The window of each layer: of those from `max_window_layers` on, if `use_sliding_window`."""
    used = flag(config, "use_sliding_window")
    size = window(config, 4096) if used else 0
    first = count(config, "max_window_layers", 28) if config.get("max_window_layers") != 0 else 0
    sliding = layer_types(config, [bool(size) and i >= first for i in range(layers)])
    if any(sliding) and not size:
        raise CheckpointError(
            "the configuration has layers with a window, but no window", got=config.get("layer_types"),
            wanted="use_sliding_window and sliding_window",
        )  # fmt: skip
    return [size if slides else 0 for slides in sliding]


def for_transformers(config: Mapping[str, Any], model_type: str, architecture: str) -> dict[str, Any]:
    """A GGUF file's configuration as transformers takes it, whose own reading of such files leaves options out."""
    given = {"pad_token_id": None, **config, "model_type": model_type, "architectures": [architecture]}
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "gguf_factors":  # which it does not know: the reference is given our frequencies
        given["rope_parameters"] = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    return given


def rope_parameters(config: Mapping[str, Any], theta: float = 10000.0) -> dict[str, Any]:
    """rope_parameters of transformers 5, or rope_theta and rope_scaling of 4, with the precedence of transformers.

    `theta` stands in for a missing rope_theta.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError("the configuration's rope is not an object", got=repr(given)[:80])
    own = config.get("rope_theta")
    return {"rope_theta": theta if own is None else own, **given}


def expand(
    table: Mapping[str, str], config: DecoderConfig, fused: Mapping[str, Place] | None = None
) -> dict[str, Place]:
    """Where every tensor is stored, from a table canonical name -> stored name with {i} for the layer's number.

    Args:
        table: of the family.
        config: says which tensors there are.
        fused: goes before the table.

    Raises:
        CheckpointError: the configuration asks for a tensor that the table lacks.
    """
    wanted = [*config.matrix_shapes(), *config.vector_shapes()]
    layers = [{k.format(i=i): v.format(i=i) for k, v in table.items() if "{i}" in k} for i in range(config.layers)]
    names: dict[str, Place] = {k: v for part in (*layers, table, fused or {}) for k, v in part.items()}
    missing = [w for w in wanted if w not in names]
    if missing:
        raise CheckpointError("this kind of file cannot hold what the configuration asks for", got=missing[:5])
    return {w: names[w] for w in wanted}


def fused_qkv(config: DecoderConfig, stored: str) -> dict[str, Rows]:
    """Where q, k and v are in a tensor that holds them one under the other; `stored` has {i}, and no `.weight`."""
    found = {}
    for i in range(config.layers):
        layer, start = config.layer(i), 0
        for part, heads in (("q", layer.heads), ("k", layer.kv_heads), ("v", layer.kv_heads)):
            stop, name = start + heads * config.head_dim, f"layers.{i}.self_attn.{part}_proj"
            found[name] = Rows(f"{stored.format(i=i)}.weight", start, stop)
            found[f"{name}.bias"] = Rows(f"{stored.format(i=i)}.bias", start, stop)
            start = stop
    return found


def fused_gate_up(config: DecoderConfig, stored: str) -> dict[str, Rows]:
    """The same of an MLP's gate, and below it its other half."""
    found = {}
    for i in range(config.layers):
        size, name = config.layer(i).intermediate_size, f"{stored.format(i=i)}.weight"
        found[f"layers.{i}.mlp.gate_proj"] = Rows(name, 0, size)
        found[f"layers.{i}.mlp.up_proj"] = Rows(name, size, 2 * size)
    return found


def refuse_unsupported(config: Mapping[str, Any], architecture: str) -> None:
    """Refuses weights that are quantized already, and models of another architecture than the language model's."""
    if config.get("quantization_config"):
        raise CheckpointError(
            "the checkpoint is already quantized",
            got=repr(config["quantization_config"])[:120],
            wanted="weights in fp32, fp16 or bf16, or a GGUF file",
            hint="pass the original checkpoint",
        )
    architectures = config.get("architectures") or [architecture]
    if architectures != [architecture]:
        raise CheckpointError(
            "the checkpoint is not a language model of this family", got=architectures, wanted=architecture
        )


def refuse_unknown(config: Mapping[str, Any], read: Iterable[str]) -> None:
    """Refuses every key that is neither read nor harmless, unless its value says that it is off.

    Raises:
        CheckpointError: names the keys, since to ignore one could mean a model that answers wrongly.
    """
    known = HARMLESS | set(read)
    unknown = {k: v for k, v in config.items() if k not in known and not _off(v)}
    if unknown:
        raise CheckpointError(
            "the configuration has options that this family does not know",
            got=", ".join(f"{k}={repr(v)[:60]}" for k, v in sorted(unknown.items())),
            wanted="only options that are carried out",
            hint="if an option has no influence on the result, remove it from config.json",
        )


def refuse_values(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses options that are set, and to another value than the one that is carried out.

    Raises:
        CheckpointError: names the option.
    """
    for key, value in wanted.items():
        if not _off(config.get(key)) and config[key] != value:
            raise CheckpointError(
                f"the configuration's '{key}' is not supported", got=repr(config[key])[:80], wanted=repr(value)
            )


def _off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
