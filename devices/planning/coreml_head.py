"""The head of a Core ML program: in how many parts, and whether its bytes are the embedding's."""

from __future__ import annotations

from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.target import Target
from satchel.devices.rulebook import rule

SPLIT = "split"


def head(on: Decisions, target: Target, *, channels_first: bool) -> None:
    """Decides lm_head and tied_head."""
    vocabulary = target.shape.vocab_size
    needed, rules = _needed(target) if channels_first else (1, "CH29")
    sizes = {*_known_parts(), _parts(on.asked("lm_head") or "")} - {0, 1}
    splits = [_split(n, vocabulary) for n in sorted(sizes) if n != needed]
    if needed > 1:
        whole = Other("whole", f"one product of {vocabulary:,} rows" + _beyond(target), rules)
        reason = f"{needed} products of {-(-vocabulary // needed):,} rows; how many are best differs between devices"
        value = on.settle("lm_head", f"{SPLIT}{needed}", reason, rules, whole, *splits)
    else:
        value = on.settle("lm_head", "whole", _why_whole(channels_first), rules, *splits)
    _tied(on, target, split=value != "whole")


def _known_parts() -> tuple[int, int]:
    known = rule("NE23")
    return int(known.number("parts_of_small")), int(known.number("parts"))


def _split(parts: int, vocabulary: int) -> Other:
    name = f"{SPLIT}{parts}"
    if parts > vocabulary:
        return never(name, f"the vocabulary has {vocabulary} rows", "NE23")
    return Other(name, "another number of parts than is reported to be good for this vocabulary", "NE23")


def _parts(value: str) -> int:
    """The number in "split<N>", 0 where it is something else."""
    digits = value.removeprefix(SPLIT)
    return int(digits) if value.startswith(SPLIT) and digits.isascii() and digits.isdecimal() else 0


def _cap(target: Target) -> tuple[int, str]:
    """The widest axis of a value on the device's engine, and the rule; logits leave the head on the last axis."""
    name = next((r for r in ("NE02", "NE03") if target.holds(r)), "NE02")
    return int(rule(name).number("spatial")), name


def _beyond(target: Target) -> str:
    cap, _ = _cap(target)
    return f", beyond the engine's {cap:,} of an axis" if target.shape.vocab_size > cap else ""


def _needed(target: Target) -> tuple[int, str]:
    """The parts of the engine's head, and the rules."""
    known, vocabulary = rule("NE23"), target.shape.vocab_size
    cap, capped_by = _cap(target)
    if vocabulary < known.number("least_channels"):
        parts = -(-vocabulary // cap)
        return parts, capped_by if parts > 1 else "NE23"
    small, large = _known_parts()
    parts = small if vocabulary <= known.number("small_channels") else large
    return max(parts, -(-vocabulary // cap)), f"NE23, {capped_by}"


def _why_whole(channels_first: bool) -> str:
    return "few enough rows for one product" if channels_first else "parts are for the engine"


def _tied(on: Decisions, target: Target, *, split: bool) -> None:
    if not target.shape.tied_embeddings:
        return
    if not split:
        why = "a head in one piece is the embedding's own data"
        on.follow("tied_head", "shared", why, "CH09", "lm_head", never("duplicated", why, "CH09"))
        return
    reason = "the parts of the head point into the embedding's bytes"
    copies = Other("duplicated", "a second copy of the table, for readers that refuse shared bytes", "CH09")
    on.settle("tied_head", "shared", reason, "CH09", copies)
