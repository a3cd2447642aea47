"""What becomes of the weights: the scheme, k and v, LUTs and scales. The same for every format as far as it can be."""

from __future__ import annotations

from satchel.devices.errors import PlanError
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.sizes import BLOCKWISE, FLOATS
from satchel.devices.planning.target import Target
from satchel.devices.rulebook import rule

WEIGHTS = ("palette", "int4", "int8", "fp16", "fp32", "source")
AGAINST = {
    "palette": ("it takes a byte a weight in memory there", "CH04, CH05"),
    "int4": ("codes of their own, where a palette is the same in every format", "CH02"),
    "int8": ("nearly twice the size", "CH16"),
    "fp16": ("more than three times the size", "CH16"),
    "fp32": ("seven times the size", "CH16"),
    "source": ("only a GGUF file has codes to keep", "CH06"),
}
"""What speaks against a scheme that is not chosen."""
OFF_THE_ENGINE = {
    "int4": ("scales by block fail on the engine or leave it", "NE15"),
    "fp32": ("the engine computes in fp16", "NE05a, CH16"),
    "source": ("its scales by block fail on the engine or leave it", "NE15, CH06"),
}
"""The same, in Core ML for a device with an engine."""


def weights(on: Decisions, target: Target, format: str, usual: str, reason: str, rules: str, *bad: Other) -> str:
    """Decides the scheme.

    Args:
        on: where the choice goes.
        target: device and model.
        format: whose preference in the profile counts.
        usual: the scheme where neither the user nor the profile says anything.
        reason: why.
        rules: ids.
        bad: schemes that this format or device cannot have.
    """
    asked, preferred = on.asked("weights"), target.profile.weights.get(format)
    if asked is not None and asked not in WEIGHTS:
        raise PlanError("unknown weight scheme", got=asked, wanted=", ".join(WEIGHTS))
    bad = (*bad, *_not_in_blocks(target))
    impossible = {other.value for other in bad}
    if preferred and preferred not in impossible:
        usual, reason, rules = preferred, target.profile.sources.get("weights", "the profile prefers it"), "CH01"
    elif usual in impossible:
        usual, reason, rules = "palette", "codes with a LUT fit every model", "CH02"
    against = AGAINST | (OFF_THE_ENGINE if format == "coreml" and target.profile.engine else {})
    others = [Other(name, *against[name]) for name in WEIGHTS if name not in {usual, *impossible}]
    return on.settle("weights", usual, reason, rules, *others, *bad)


def _not_in_blocks(target: Target) -> list[Other]:
    """int4, where a row is no whole number of blocks."""
    shape, block = target.shape, int(rule("CH23").number("block"))
    rows = set(shape.row_lengths) or {shape.hidden_size, shape.heads * shape.head_dim, shape.intermediate_size}
    wrong = sorted(length for length in rows if length % block)
    return [never("int4", f"rows of {wrong[0]} weights are no whole number of blocks", "CH23")] if wrong else []


def kv_weights(on: Decisions, target: Target, scheme: str, *, by_loss: bool) -> str:
    """Decides whether k and v are kept at 8 bits beside a palette; the same for every format."""
    shape = target.shape
    share = 2 * shape.key_channels * shape.hidden_size / shape.parameters
    narrow = share <= rule("CH03").number("widest_share")
    if scheme != "palette":
        why = "only a palette has other widths beside it"
        return on.settle(
            "kv_weights", "as_linear", why, "CH03", never("int8", why, "CH03"), never("by_loss", why, "CH22")
        )
    eight = Other("int8", f"k and v are {share:.0%} of the weights", "CH03")
    plain = Other("as_linear", "k and v lose most of all linears", "CH03")
    if by_loss:
        chosen = "their bits are chosen by the losses that are measured"
        return on.settle(
            "kv_weights", "by_loss", "k and v lose most, as their measured losses show", "CH22",
            never("int8", chosen, "CH22"), never("as_linear", chosen, "CH22"),
        )  # fmt: skip
    measured = never("by_loss", "that is for effort normal and high", "CH22")
    if narrow:
        reason = f"{share:.0%} of the weights and much of the loss"
        return on.settle("kv_weights", "int8", reason, "CH03", plain, measured)
    return on.settle("kv_weights", "as_linear", eight.why, "CH03", eight, measured)


def lut_groups(on: Decisions, scheme: str, *against: Other) -> str:
    """Decides how many LUTs a matrix has; `against` is what a format says of several."""
    if scheme != "palette":
        why = f"{scheme} has no LUT that could be grouped"
        return on.settle("lut_groups", "tensor", why, "CH02", never("rows16", why, "CH02"))
    grouped = against or (Other("rows16", "grouped LUTs gain little quality", "CH02"),)
    return on.settle("lut_groups", "tensor", "one LUT a matrix, the same in every format", "CH02", *grouped)


def scale_dtype(on: Decisions, value: str) -> str:
    """Records the floats of block scales: XNNPACK's are bfloat16, the others fp16."""
    other = "float16" if value == "bfloat16" else "bfloat16"
    xnnpack = value == "bfloat16"
    why = "XNNPACK's packing takes bfloat16" if xnnpack else "half of fp32, and exact in Core ML and onnxruntime"
    against = why if xnnpack else "only XNNPACK's packing takes it"
    return on.follow("scale_dtype", value, why, "CH11", "the format and its target", never(other, against, "CH11"))


def cache_dtype(on: Decisions, scheme: str, usual: str) -> str:
    """Records what keys and values are stored as: fp32 where the program computes in it."""
    value = "float32" if scheme == "fp32" else usual
    why = "the floats that the program computes in"
    others = [never("int8", "no exporter writes it, and its loss is not measured", "CH31, AC11")]
    if usual == "float32":
        others.append(never("float16", "no exporter writes it, though there are kernels", "CH21, AC11"))
    return on.follow("cache_dtype", value, why, "CH31", "the format and its weights", *others)


def is_float(scheme: str) -> bool:
    """Whether the weights are kept as floats."""
    return scheme in FLOATS


def is_blockwise(scheme: str) -> bool:
    """Whether there is a scale for each block of a row."""
    return scheme in BLOCKWISE
