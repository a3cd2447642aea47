"""Choices for Core ML: sizes, systems and units, in the order in which one follows from another."""

from __future__ import annotations

from satchel.devices.planning import coreml_cache as caches
from satchel.devices.planning.coreml_forms import forms
from satchel.devices.planning.coreml_head import head
from satchel.devices.planning.coreml_units import NEWEST, Program, units
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.lengths import context_length
from satchel.devices.planning.sizes import fewest_chunks, largest_chunk, pieces
from satchel.devices.planning.target import Place, Target, known_targets, opsets
from satchel.devices.planning.weights import kv_weights, lut_groups, scale_dtype, weights
from satchel.devices.rulebook import Rule, rule


def coreml(on: Decisions, target: Target, *, by_loss: bool) -> tuple[int, int]:
    """Makes all choices; returns context and prefill length."""
    opset = coreml_target(on, target)
    modern = opset.ios >= rule(NEWEST).ios
    late = () if modern else (_late("int4"), _late("source"))
    reason = "4-bit codes with a LUT, which the engine streams"
    scheme = weights(on, target, "coreml", "palette", reason, "NE14, CH02", *late)
    kv_weights(on, target, scheme, by_loss=by_loss)
    coreml_luts(on, scheme, modern=modern)
    scale_dtype(on, "float16")
    program = units(on, target, scheme, modern=modern)
    _chunks(on, target, program)
    forms(on, target, program)
    written = caches.cache(on, target, program)
    dtype = caches.dtype(on, program)
    context = context_length(on, target, scheme, dtype, folded=False)
    prefill = caches.prefill_length(on, program, written, context)
    head(on, target, channels_first=program.channels_first)
    return context, prefill


def _late(scheme: str) -> Other:
    return never(scheme, "scales by block came with iOS 18", NEWEST)


def coreml_target(on: Decisions, target: Place) -> Rule:
    """Decides Core ML's target, which older systems than the device's may get too; returns its rule."""
    usual, written = target.coreml, opsets()
    others = [
        Other(r.text("target"), f"older systems than {target.profile.title}'s, and without what came later", r.id)
        if r.ios < usual.ios
        else never(r.text("target"), f"{target.profile.title} is planned for with {usual.text('target')}", r.id)
        for r in written
        if r is not usual
    ]
    beyond = [r for r in known_targets() if r not in written]
    others += [
        never(r.text("target"), "it adds no op for a decoder, and Satchel does not write it", r.id) for r in beyond
    ]
    reason = f"the newest opset that {target.profile.title} surely has"
    name = on.settle("target", usual.text("target"), reason, usual.id, *others)
    opset = next(r for r in written if r.text("target") == name)
    on.follow("opset", opset.text("opset"), "of the program's functions", opset.id, "target")
    oldest = f"iOS {opset.ios}, macOS {opset.number('macos')}"
    on.follow("minimum_os", oldest, "the oldest systems that read the package", opset.id, "target")
    return opset


def coreml_luts(on: Decisions, scheme: str, *, modern: bool) -> None:
    """Decides LUT groups: none before iOS 18, and slow on the engine."""
    slow = "grouped LUTs are reported 19 to 47% slower on the engine, for little quality"
    late = "a LUT for each group of rows came with iOS 18"
    lut_groups(on, scheme, Other("rows16", slow, "NE16a, CH02") if modern else never("rows16", late, NEWEST))


def _chunks(on: Decisions, target: Target, program: Program) -> None:
    """Decides how many packages the layers are spread over: the engine limits a program's bytes."""
    shape = target.shape
    shared = program.modern and on.asked("tied_head") != "duplicated"
    sizes = pieces(shape, program.weights, shared=shared)
    fine, hard = rule("NE19a").number("most_bytes"), rule("NE19b").number("most_bytes")
    soft = min(fine, hard) if target.holds("NE19a") else hard
    rules = "NE19a, CH20" if soft == fine else "NE19b, CH20"
    most = min(shape.layers, int(rule("NE20").number("programs")) // 2)

    def judged(count: int) -> Other | None:
        if count > most:
            return never(str(count), f"a model of {shape.layers} layers has 1 to {most}", "NE20, CH20")
        largest = largest_chunk(sizes, count)
        if program.engine and largest > hard:
            return never(
                str(count), f"a program of {_gigabytes(largest)} is too large for the engine's compiler", "NE19b"
            )
        if program.engine and largest > soft:
            return Other(str(count), f"a program has {_gigabytes(largest)}, and may leave the engine", "NE19a")
        return None

    if not program.engine:
        reason, needed, rules = "no engine that would limit a program", 1, "CH20"
    else:
        needed = min(fewest_chunks(sizes, soft), most)
        reason = f"{_gigabytes(sum(sizes))} of weights, of which a program has at most {_gigabytes(soft)}"
    fewer = judged(1)
    others = [fewer] if fewer and needed > 1 else []
    if needed == 1 and most > 1:
        others = [Other("2", "each further program costs a dispatch a token", "NE20")]
    on.number("chunks", needed, reason, rules, *others, judged=judged)


def _gigabytes(count: float) -> str:
    return f"{count / rule('CH17').number('bytes_a_gb'):.2f} GB"
