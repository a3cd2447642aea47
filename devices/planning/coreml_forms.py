"""The forms of a Core ML program's ops, most of which are one for all: what the device would make of the others."""

from __future__ import annotations

from satchel.devices.planning.coreml_units import NEWEST, Program
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.target import Target


def forms(on: Decisions, target: Target, program: Program) -> None:
    """Decides attention, and records embedding, norm, rotary, activation and what activations are kept as."""
    _attention(on, target, program)
    _activations(on, target, program)
    gather = "a gather inside the program" + (", which H13 leaves to the CPU" if target.holds("NE11a") else "")
    on.follow(
        "embedding", "gather", gather, "NE11a, NE11b" if target.holds("NE11a") else "NE11b, CH21", "the format",
        never("host", "no exporter leaves the table to the app", "CH21, NE11b"),
    )  # fmt: skip
    on.follow(
        "norm", "divided_by_peak", "squares of the row over its largest value cannot overflow fp16", "CH13, NE10",
        "the format", never("plain", "x * x overflows fp16 above 255", "NE10"),
        never("layer_norm_of_mirrored", "no exporter writes it; the same protection", "CH21, NE10"),
    )  # fmt: skip
    far = (
        "sin and cos leave this engine, and lose digits in fp16"
        if target.holds("NE12b")
        else "they lose digits in fp16"
    )
    on.follow(
        "rotary", "tables", "cosines and sines are looked up by position", "CH15, NE12b", "the format",
        never("sin_cos", far, "NE12b, CH15" if target.holds("NE12b") else "CH15"),
    )  # fmt: skip


def _attention(on: Decisions, target: Target, program: Program) -> None:
    late = never("fused_sdpa", "the op came with iOS 18", NEWEST)
    if program.channels_first:
        fused = never("fused_sdpa", "it gave infinities on the engine under iOS 26", "NE09") if program.modern else late
        batched = never("batched", "products over all heads are for the plain layout", "CH24")
        reason = "two products for each key and value head, which keep the channels where the engine has them"
        on.settle("attention", "per_head", reason, "NE09", fused, batched)
        return
    apart = never("per_head", "for the engine's layout", "CH24")
    if not program.modern:
        on.settle("attention", "batched", "products over all heads, before iOS 18 had one op", NEWEST, late, apart)
    elif program.engine:
        fused = never("fused_sdpa", "it gave infinities on the engine under iOS 26", "NE09")
        on.settle("attention", "batched", "no fused op on the engine", "NE09", fused, apart)
    elif target.shape.softcapped:
        fused = never("fused_sdpa", "the op cannot cap scores", "CH32")
        on.settle("attention", "batched", "products whose scores are capped", "CH32", fused, apart)
    elif program.fp32:
        fused = Other("fused_sdpa", "untried by us in fp32", "CH30")
        on.settle("attention", "batched", "products in fp32", "CH30", fused, apart)
    else:
        batched = Other("batched", "the same in six ops", NEWEST)
        on.settle("attention", "fused_sdpa", "one op for the GPU from iOS 18 on", NEWEST, batched, apart)


def _activations(on: Decisions, target: Target, program: Program) -> None:
    if target.shape.activation == "silu":
        on.follow(
            "activation", "half_tanh", "silu as 0.5x (1 + tanh(x/2)): exact near 0, in fp16 throughout", "CH14, NE27",
            "the model", never("silu", "it may go through fp32, and is imprecise near 0 on the engine", "NE27, CH14"),
            never("times_sigmoid", "coremltools makes silu of it where its passes run", "CH14, NE27"),
        )  # fmt: skip
    else:
        gegelu = target.shape.activation == "gegelu"
        text = "x * sigmoid(1.702 x), within limits" if gegelu else "Core ML's gelu in the tanh form"
        on.follow("activation", target.shape.activation, text, "CH21", "the model")
    slow = target.holds("NE18")
    int8 = (
        "int8 products are no faster on this engine, and cost accuracy" if slow else "no exporter quantizes activations"
    )
    rules = "NE18" if slow else "CH21, NE18"
    value, why = ("float32", "fp32 weights") if program.fp32 else ("float16", "the engine's own floats")
    on.follow(
        "activation_dtype", value, why, "CH30" if program.fp32 else "NE05a", "the weights", never("int8", int8, rules)
    )
