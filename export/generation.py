"""How to sample, as a checkpoint's generation_config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satchel.runtime.errors import CheckpointError
from satchel.runtime.manifest import GenerationDefaults


def generation_defaults(config: Mapping[str, Any]) -> GenerationDefaults:
    """generation_config.json -> the bundle's defaults; greedy unless it asks for sampling.

    Values that it leaves out are transformers' own: temperature 1, the 50 likeliest ids, top_p 1.

    Raises:
        CheckpointError: a value is out of range.
    """
    tokens = int(_number(config, "max_new_tokens", GenerationDefaults.max_new_tokens, 1, 1 << 20))
    if config.get("do_sample") is not True:
        return GenerationDefaults(max_new_tokens=tokens)
    return GenerationDefaults(
        max_new_tokens=tokens,
        temperature=_number(config, "temperature", 1.0, 0.0, 100.0),
        top_k=int(_number(config, "top_k", 50, 0, 1 << 22)),
        top_p=_number(config, "top_p", 1.0, 1e-6, 1.0),
    )


def _number(config: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CheckpointError(
            f"the checkpoint's generation option '{key}' is not usable", got=repr(value)[:80], wanted=f"{low} to {high}"
        )
    return float(value)
