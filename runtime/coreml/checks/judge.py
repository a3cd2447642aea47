"""Judges a package by the rules in devices/rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from satchel.devices.rulebook import NO_CHECK, Rule, load_rules
from satchel.runtime.coreml.checks import compression, interface, masks, operations, shapes, states
from satchel.runtime.coreml.checks.report import Finding, Report, Unjudged
from satchel.runtime.coreml.checks.subject import Check, Found, Subject
from satchel.runtime.coreml.checks.target import Target, resolve_target
from satchel.runtime.coreml.survey import surveys
from satchel.runtime.mil.package import Package, open_package

ENGINE_RULES, CORE_RULES = "neural-engine", "core-ml"

CHECKS: dict[str, Check] = {
    "CM01": interface.specification_version,
    "CM02": interface.op_of_later_opset,
    "CM03": interface.op_missing_on_target,
    "CM04": interface.unknown_op,
    "CM05": interface.late_element_types,
    "CM06": states.state_never_written,
    "CM07": states.state_never_read,
    "CM08": interface.late_features,
    "CM09": interface.interface_mismatch,
    "NE01": shapes.padded_last_axis,
    "NE02": shapes.axis_cap,
    "NE03": shapes.axis_cap,
    "NE04": shapes.rank,
    "NE05a": operations.compute_in_wide_floats,
    "NE05b": operations.compute_in_integers,
    "NE05c": interface.wide_interface,
    "NE06": shapes.dynamic_shapes,
    "NE07": operations.linear_layers,
    "NE08a": masks.minus_infinity,
    "NE08b": shapes.softmax_axis,
    "NE09": operations.attention_op,
    "NE10": operations.naive_rms_norm,
    "NE11a": operations.present,
    "NE11b": operations.embedding_inside,
    "NE12a": operations.present,
    "NE12b": operations.present,
    "NE12c": shapes.arg_reduce_axis,
    "NE12d": operations.present,
    "NE13a": operations.kernel_width,
    "NE13b": operations.kernel_width,
    "NE13c": operations.stride_factors,
    "NE13d": operations.palettized_stride,
    "NE14": compression.int8_weights_expanded,
    "NE15": compression.per_block_quantization,
    "NE16a": compression.small_palette_groups,
    "NE16b": compression.palette_kind,
    "NE17a": compression.scaled_palette,
    "NE17b": compression.weights_beside_scaled_palettes,
    "NE17c": compression.stateful_palette,
    "NE18": operations.present,
    "NE19a": compression.program_size,
    "NE19b": compression.weight_file_size,
    "NE21a": states.state_last_axis,
    "NE21b": states.state_count,
    "NE21c": states.state_update_length,
    "NE22": states.state_length,
    "NE23": operations.unsplit_head,
    "NE27": operations.present,
}
"""Id of a rule -> what judges a program by it. A rule without one says why in its file."""


def check_package(path: Path | str, target: str | None = None) -> Report:
    """Judges a package.

    Args:
        path: a .mlpackage folder, or a .mlmodel file that holds an ML Program.
        target: a device's name, a system such as "iOS17" or "macOS15", an engine such as "H16"; None for any.

    Raises:
        FormatError: it is not a readable ML Program.
        UsageError, DeviceError: the target is not known.
    """
    aim = resolve_target(target)
    return judge(open_package(Path(path)), aim, (*load_rules(CORE_RULES), *load_rules(ENGINE_RULES)))


def judge(package: Package, target: Target, rules: Iterable[Rule]) -> Report:
    """Judges a package by the rules that hold for the target."""
    return judge_subject(Subject(package, surveys(package), target, {rule.id: rule for rule in rules}))


def judge_subject(subject: Subject) -> Report:
    """The same of a package that has been surveyed."""
    held = [rule for rule in subject.rules.values() if rule.check != NO_CHECK and applies(rule, subject.target)]
    answers = [answer for rule in held for answer in _answers(subject, rule)]
    return Report(
        subject.package.path.name,
        subject.target,
        tuple(rule.id for rule in held),
        tuple(a for a in answers if isinstance(a, Finding)),
        tuple(dict.fromkeys(a for a in answers if isinstance(a, Unjudged))),
    )


def applies(rule: Rule, target: Target) -> bool:
    """Whether a rule concerns a target; where its engine is not known, the rules of every generation do."""
    if rule.id.startswith("NE") and not target.has_engine:
        return False
    return not (rule.engines and target.engine and target.engine not in rule.engines)


def _answers(subject: Subject, rule: Rule) -> Iterator[Finding | Unjudged]:
    for answer in CHECKS[rule.id](subject, rule):
        if isinstance(answer, Found):
            yield Finding(rule, answer)
        else:
            yield Unjudged(rule.id, answer.reason)
