"""The context length: what was asked for, or the usual one, shorter where weights and cache would not fit."""

from __future__ import annotations

from satchel.devices.errors import PlanError
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.sizes import app_memory, cache_bytes, model_bytes, picture_rows
from satchel.devices.planning.target import Target
from satchel.devices.rulebook import rule


def context_length(on: Decisions, target: Target, weights: str, cache_dtype: str, *, folded: bool) -> int:
    """Decides how many tokens the cache holds.

    Args:
        on: where the choice goes.
        target: device and model.
        weights: scheme.
        cache_dtype: "float16" or "float32".
        folded: the runtime unpacks a palette to 8-bit codes.
    """
    shape, usual = target.shape, rule("CH18")
    most, shortest = shape.max_position, int(usual.number("shortest"))
    asked = on.asked("context_length")
    if asked is not None and asked.isdecimal() and not shortest <= int(asked) <= most:
        raise PlanError(
            "context length out of range", got=asked, wanted=f"{shortest} to {most}, what the model was trained for"
        )
    room = app_memory(target.profile) - model_bytes(shape, weights, folded=folded)
    room -= rule("CH17").number("runtime_bytes")
    pictured = picture_rows(shape) + int(usual.number("least")) if shape.tower else 0
    length = wanted = min(_doubled(int(usual.number("tokens")), pictured), most)
    while length // 2 >= usual.number("least") and cache_bytes(shape, length, cache_dtype) > room:
        length //= 2
    fits = cache_bytes(shape, length, cache_dtype) <= room
    reason, rules = _reason(length, wanted, most, fits=fits)
    longer = Other(str(most), "what the model was trained for; a token's time and the cache grow with it", "NE22")

    def judged(tokens: int) -> Other | None:
        if cache_bytes(shape, tokens, cache_dtype) <= room:
            return None
        return Other(str(tokens), "weights and cache are not expected to fit what an app may use", "CH17")

    rejected = [longer] if length < most else []
    if length < wanted:
        rejected.insert(0, Other(str(wanted), "weights and cache would not fit what an app may use", "CH17"))
    return on.number("context_length", length, reason, rules, *rejected, judged=judged)


def _doubled(tokens: int, least: int) -> int:
    """So often that a picture, and some text, have room."""
    while tokens < least:
        tokens *= 2
    return tokens


def _reason(length: int, wanted: int, most: int, *, fits: bool) -> tuple[str, str]:
    if not fits:
        return "the shortest that is planned; the weights alone are not expected to fit an app's memory", "CH17, CH18"
    if length < wanted:
        return "as long as weights and cache are expected to fit what an app may use", "CH17, CH18"
    if length == most:
        return "all that the model was trained for", "CH18"
    return "the usual length; weights and cache fit what an app may use", "CH18, CH17"


def any_prefill(on: Decisions) -> None:
    """Records that a call takes a prompt of any length."""
    on.settle(
        "prefill_length", "any", "the program takes any length up to the context's", "CH21",
        never("1", "a prompt would go through one token at a time", "CH21"),
    )  # fmt: skip
