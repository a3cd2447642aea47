"""Where a Core ML program's cache lies, how it is written, and how many tokens go into one call."""

from __future__ import annotations

from satchel.devices.planning.coreml_units import NEWEST, Program
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.target import Target
from satchel.devices.planning.weights import cache_dtype
from satchel.devices.rulebook import rule


def cache(on: Decisions, target: Target, program: Program) -> str:
    """Decides cache and cache_write; returns the latter."""
    head, multiple = target.shape.head_dim, int(rule("NE21a").number("multiple"))
    if program.stateful and program.engine and head % multiple:
        state = Other("state", f"a state of {head} channels, no multiple of {multiple}, fails on the engine", "NE21a")
        where = on.settle("cache", "io", f"heads of {head} channels, whose states the engine refuses", "NE21a", state)
    elif program.stateful:
        io = Other("io", "the app copies the new rows at each call", NEWEST)
        where = on.settle("cache", "state", "states keep the cache in place; they came with iOS 18", NEWEST, io)
    elif program.modern:
        state = never("state", "states hold fp16", "CH30")
        where = on.settle("cache", "io", "an fp32 program's cache is passed in and out", "CH30", state)
    else:
        state = never("state", "states came with iOS 18", NEWEST)
        where = on.settle("cache", "io", "before iOS 18 the cache is passed in and out", NEWEST, state)
    if where == "io":
        none = [never(v, "the program does not write this cache", NEWEST) for v in ("slice_update", "mask")]
        return on.follow("cache_write", "host", "the app writes the new rows", NEWEST, "cache", *none)
    return cache_write(on)


def cache_write(on: Decisions) -> str:
    """Decides how a program writes its states."""
    return on.settle(
        "cache_write", "slice_update", "writes only the new rows", "CH10",
        Other("mask", "it writes the whole cache at each call", "CH10"),
        never("host", "the program writes its states itself", NEWEST),
    )  # fmt: skip


def dtype(on: Decisions, program: Program) -> str:
    """Records what keys and values are stored as."""
    return cache_dtype(on, program.weights, "float16")


def prefill_length(on: Decisions, program: Program, written: str, context: int) -> int:
    """Decides how many tokens of a prompt go into one call."""
    limit = int(rule("NE21c").number("most"))
    limited = program.engine and written == "slice_update"

    def judged(length: int) -> Other | None:
        if length > context:
            return never(str(length), f"the cache holds {context} tokens", "CH19")
        if not program.modern and length > 1:
            return never(str(length), "a second function of another length came with iOS 18", NEWEST)
        if limited and length > limit:
            return Other(
                str(length), f"at most {limit} tokens written at once are reported to work on the engine", "NE21c"
            )
        return None

    usual = int(rule("CH19").number("tokens"))
    if not program.modern:
        longer = never(str(usual), "a second function of another length came with iOS 18", NEWEST)
        return on.number("prefill_length", 1, "one function, for one token", NEWEST, longer, judged=judged)
    if limited and usual > limit:
        longer = Other(str(usual), "more at once than is reported to work on the engine", "NE21c")
        reason = "the most rows that are reported to be written at once on the engine"
        return on.number("prefill_length", min(limit, context), reason, "NE21c", longer, judged=judged)
    least = Other("1", "prompts would be read token by token", "CH19")
    return on.number("prefill_length", min(usual, context), "the usual length", "CH19", least, judged=judged)
