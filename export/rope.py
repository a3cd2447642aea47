"""Inverse frequencies and cos/sin tables of rotary position embeddings.

Scaling types that are known: default, linear, llama3 (of Llama 3.1 to 3.3), yarn (Qwen at long contexts), longrope
(Phi-3 and Phi-4-mini), and gguf_factors (divisors that llama.cpp stores instead; the name is ours). They are computed
in fp64 and rounded to fp32 where transformers rounds, so that the tables are the same bits on every machine and within
a unit in the last place of transformers' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from satchel.export.families.base import Rope
from satchel.runtime.errors import CheckpointError


def rope_tables(rope: Rope, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the positions 0 to length - 1.

    Returns:
        (cos, sin), each float32 [length, head_dim / 2]. The angle is rounded to fp32 before the cosine is taken, as
        transformers does: at position 8000 that moves it by up to 2e-4 radians.
    """
    inv_freq = np.asarray(rope.inv_freq, np.float32)
    angle = (np.arange(length, dtype=np.float32)[:, None] * inv_freq[None, :]).astype(np.float64)
    return tuple((f(angle) * rope.attention_factor).astype(np.float32) for f in (np.cos, np.sin))  # type: ignore[return-value]


def partial_rope(parameters: Mapping[str, Any], head_dim: int, max_position: int, share: float = 1.0) -> Rope:
    """As make_rope, of the first `partial_rotary_factor` (by default `share`) of a head's channels.

    transformers rounds down.
    """
    given = {"partial_rotary_factor": share, **parameters}
    factor = given.pop("partial_rotary_factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise CheckpointError(
            "the configuration's 'partial_rotary_factor' is not usable",
            got=repr(factor)[:80],
            wanted="above 0, up to 1",
        )
    return make_rope(given, int(head_dim * factor), max_position)


def make_rope(parameters: Mapping[str, Any], head_dim: int, max_position: int) -> Rope:
    """The rope of a checkpoint.

    Args:
        parameters: `rope_parameters` of a transformers 5 configuration: rope_type, rope_theta and what the type needs.
        head_dim: channels of a head, all of them rotated.
        max_position: stands in for a missing `original_max_position_embeddings`.

    Raises CheckpointError for a type that is not known, a key that the type lacks or has in excess, and values that
    give no finite positive frequencies.
    """
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise CheckpointError(
            "the checkpoint's rope type is not supported", got=kind, wanted=f"one of {', '.join(SCALINGS)}"
        )
    keys, scale = SCALINGS[kind]
    values = dict(parameters)
    if "original_max_position_embeddings" in keys:
        values.setdefault("original_max_position_embeddings", max_position)
    _check_keys(kind, values, keys)
    with np.errstate(all="ignore"):
        unscaled = _unscaled(_number(values, "rope_theta"), head_dim)
        if kind == "longrope":
            return _longrope(unscaled, values, max_position)
        factor = _yarn_attention(values) if kind == "yarn" else 1.0
        return Rope(_usable(scale(unscaled, values), head_dim, parameters), factor, kind=kind)


def _usable(inv_freq: np.ndarray, head_dim: int, parameters: Mapping[str, Any]) -> tuple[float, ...]:
    if head_dim < 2 or head_dim % 2 or not np.all(np.isfinite(inv_freq) & (inv_freq > 0)):
        raise CheckpointError(
            "the checkpoint's rope gives no usable frequencies", got={"head_dim": head_dim, **parameters}
        )
    return tuple(float(f) for f in inv_freq)


def _longrope(unscaled: np.ndarray, parameters: Mapping[str, Any], max_position: int) -> Rope:
    """Divisors for each frequency, one set up to the original context and another beyond it (Phi-3's LongRoPE).

    cos and sin are scaled alike at both, by what the whole context would need: sqrt(1 + ln(factor) / ln(original)).
    """
    original = _number(parameters, "original_max_position_embeddings")
    factor = max_position / original if parameters.get("factor") is None else _number(parameters, "factor")
    if parameters.get("attention_factor") is not None:
        attention = _number(parameters, "attention_factor")
    else:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = (
        _usable(_divided(unscaled, parameters[key]), 2 * unscaled.size, parameters)
        for key in ("short_factor", "long_factor")
    )
    return Rope(short, attention, long, int(original), kind="longrope")


def _unscaled(theta: float, head_dim: int) -> np.ndarray:
    """theta ** -(2 i / head_dim), float32 [head_dim / 2]."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(max(head_dim, 1))
    power = np.power(np.float64(theta), exponent.astype(np.float64)).astype(np.float32)
    return np.float32(1) / power


def _default(inv_freq: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    return inv_freq


def _linear(inv_freq: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Positions squeezed by the factor."""
    return inv_freq / np.float32(_number(parameters, "factor"))


def _llama3(inv_freq: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Long wavelengths are stretched by the factor, short ones kept, those between blended (Llama 3.1's release)."""
    factor = np.float32(_number(parameters, "factor"))
    low, high = _number(parameters, "low_freq_factor"), _number(parameters, "high_freq_factor")
    original = _number(parameters, "original_max_position_embeddings")
    if not (0 < low < high):
        raise CheckpointError("llama3 rope needs 0 < low_freq_factor < high_freq_factor", got=f"{low} and {high}")
    wavelength = np.float32(2 * math.pi) / inv_freq
    blend = (np.float32(original) / wavelength - np.float32(low)) / np.float32(high - low)
    blended = (1 - blend) * inv_freq / factor + blend * inv_freq
    long = np.where(wavelength > np.float32(original / low), inv_freq / factor, blended)
    return np.where(wavelength < np.float32(original / high), inv_freq, long)


def _yarn(inv_freq: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """What turns often within the original context is kept, what turns seldom is stretched by the factor, and what lies
    between is blended by a ramp over the channels (Peng et al., arXiv 2309.00071)."""
    channels, theta = 2 * inv_freq.size, _number(parameters, "rope_theta")
    original = _number(parameters, "original_max_position_embeddings")

    def channel(turns: float) -> float:
        """The pair of channels that turns so often within the original context."""
        return channels * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    ends = [channel(_number({key: parameters.get(key) or turns}, key)) for key, turns in YARN_TURNS.items()]
    if parameters.get("truncate", True):
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], channels - 1)
    ramp = (np.arange(inv_freq.size, dtype=np.float32) - np.float32(low)) / np.float32((high - low) or 0.001)
    kept = 1 - np.clip(ramp, 0, 1)
    return np.asarray(inv_freq / np.float32(_number(parameters, "factor")) * (1 - kept) + inv_freq * kept, np.float32)


def _yarn_attention(parameters: Mapping[str, Any]) -> float:
    """What cos and sin are multiplied by: as stated, or 0.1 ln(factor) + 1, for each of two mscales if there are."""
    if parameters.get("attention_factor") is not None:
        return _number(parameters, "attention_factor")
    factor, both = _number(parameters, "factor"), [parameters.get(k) for k in ("mscale", "mscale_all_dim")]
    scale = [0.1 * (m or 1) * math.log(factor) + 1 if factor > 1 else 1.0 for m in both]
    return scale[0] / scale[1] if all(both) else 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def _gguf_factors(inv_freq: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Each frequency divided by its own factor."""
    return _divided(inv_freq, parameters["factors"])


def _divided(inv_freq: np.ndarray, given: Any) -> np.ndarray:
    try:
        factors = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise CheckpointError("the rope factors are not numbers", got=error) from None
    if factors.shape != inv_freq.shape:
        raise CheckpointError("the rope factors do not fit the heads", got=factors.shape, wanted=inv_freq.shape)
    return inv_freq / factors


def _check_keys(kind: str, values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    known = {"rope_type", "type", "rope_theta", *keys, *OPTIONAL.get(kind, ())}
    # Written as None, or as its neutral value, by transformers for models that do not use it.
    excess = {k for k, v in values.items() if k not in known and not _neutral(k, v)}
    missing = {"rope_theta", *keys} - {k for k, v in values.items() if v is not None}
    if excess or missing:
        raise CheckpointError(
            f"the checkpoint's '{kind}' rope has other parameters than that type takes",
            got=dict(values),
            wanted=", ".join(("rope_theta", *keys)),
        )


def _neutral(key: str, value: Any) -> bool:
    return value is None or (key == "partial_rotary_factor" and value == 1)


def _number(parameters: Mapping[str, Any], key: str) -> float:
    value = parameters[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise CheckpointError(f"the checkpoint's rope parameter '{key}' is not a positive number", got=value)
    return float(value)


SCALINGS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]]] = {
    "default": ((), _default),
    "linear": (("factor",), _linear),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), _llama3),
    "yarn": (("factor", "original_max_position_embeddings"), _yarn),
    "longrope": (("short_factor", "long_factor", "original_max_position_embeddings"), _default),
    "gguf_factors": (("factors",), _gguf_factors),
}
"""rope_type -> (the parameters it needs besides rope_theta, the function that applies it)."""
YARN_TURNS = {"beta_fast": 32.0, "beta_slow": 1.0}
OPTIONAL = {
    "longrope": ("factor", "attention_factor"),
    "yarn": ("attention_factor", *YARN_TURNS, "mscale", "mscale_all_dim", "truncate"),
}
"""Parameters that a type may have besides."""
