"""Weights whose compression the engine does not take, or takes slowly."""

from __future__ import annotations

from collections.abc import Iterator

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, Found, NotJudged, Subject, at, shown
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp, elements
from satchel.runtime.coreml.weights import is_per_block, palette_bits, palette_groups, palette_vector, scale_blocks
from satchel.runtime.mil.dtypes import DType

PALETTES = ("constexpr_lut_to_dense", "constexpr_lut_to_sparse")
SCALES = ("constexpr_blockwise_shift_scale", "constexpr_sparse_blockwise_shift_scale")
AFFINE = "constexpr_affine_dequantize"
WRITER = "com.github.apple.coremltools.version"


def _data_type(function: FunctionSurvey, op: SurveyedOp) -> DType | None:
    """Element type of the numbers that an op scales."""
    found = function.argument_type(op, "data") or function.argument_type(op, "nonzero_data")
    return found[0] if found else None


def _scales_floats(function: FunctionSurvey, op: SurveyedOp) -> bool:
    """Whether a scale is applied to numbers rather than to codes, as coremltools 9 does on top of a palette."""
    dtype = _data_type(function, op)
    return dtype is not None and dtype.is_float


def int8_weights_expanded(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Weights of 8 bits that are no palette."""
    for function, op in subject.each((AFFINE, *SCALES)):
        types = (function.argument_type(op, n) for n in ("quantized_data", "data", "nonzero_data"))
        data = next((t for t in types if t), None)
        if data is not None and data[0].name in rule.names("types"):
            yield at(op, f"{data[0].name} weights, {shown(data[1])}")


def per_block_quantization(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Weights with several scales a channel."""
    for function, op in subject.each(SCALES):
        if is_per_block(function, op) and not _scales_floats(function, op):
            sizes = " x ".join(str(size) for _, _, size in scale_blocks(function, op))
            yield at(op, f"blocks of {sizes}")


def small_palette_groups(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Palettes for few channels each."""
    for function, op in subject.each(PALETTES):
        groups = palette_groups(function, op)
        if groups and min(size for _, size in groups) < rule.number("least"):
            sizes = " x ".join(str(size) for _, size in groups)
            yield at(op, f"groups of {sizes}, fast from {rule.number('least')} on")


def palette_kind(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Palettes of unusual bits, or of vectors."""
    for function, op in subject.each(PALETTES):
        bits, vector = palette_bits(function, op), palette_vector(function, op)
        if bits not in rule.numbers("bits"):
            yield at(op, f"a palette of {bits} bits")
        elif vector > 1:
            yield at(op, f"a palette of {bits} bits whose entries are vectors of {vector}")


def scaled_palette(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Scales on top of a palette."""
    for function, op in subject.each(SCALES):
        if _scales_floats(function, op):
            dtype = _data_type(function, op)
            yield at(op, f"scales {dtype.name if dtype else 'float'} numbers, not codes")


def weights_beside_scaled_palettes(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Uncompressed weights of a program whose other weights are scaled palettes."""
    scaled = any(_scales_floats(function, op) for function, op in subject.each(SCALES))
    if not scaled:
        return
    for function, op in subject.each(rule.names("ops")):
        for parameter in ("weight", "y"):
            values = op.arguments.get(parameter, ())
            proto = function.constant(values[0]) if len(values) == 1 else None
            found = function.type_of(proto) if proto is not None else None
            if found and found[0].is_float and elements(found[1]) >= rule.number("least_elements"):
                yield at(op, f"its {parameter}, {shown(found[1])}, is not compressed")


def stateful_palette(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Programs with states and small palettes, by who wrote them."""
    for function in subject.functions:
        ops = [op for op in function.ops if op.type in PALETTES and palette_bits(function, op) == rule.number("bits")]
        if not ops or not function.states:
            continue
        writer = subject.package.metadata.get(WRITER, "")
        if not writer:
            yield NotJudged(f"{function.name} has states and 4-bit palettes; the package does not say what wrote it")
        elif writer.startswith(str(rule.parameters["writer"])):
            what = f"{len(ops)} 4-bit palettes and {len(function.states)} states, written by coremltools {writer}"
            yield Found(what, function.name)


def program_size(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Weights beyond what one program may have on an iPhone."""
    size = sum(subject.weight_files().values())
    if size <= rule.number("most_bytes"):
        return
    what = f"{size / 1e6:,.0f} MB of weights"
    if not subject.target.system:
        yield NotJudged(f"{what}: too many for an iPhone or iPad, but the target is not known")
    elif subject.target.system == "ios":
        yield Found(what)


def weight_file_size(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Weight files beyond what the engine's compiler takes."""
    for name, size in subject.weight_files().items():
        if size > rule.number("most_bytes"):
            yield Found(f"{name} has {size:,} bytes")
