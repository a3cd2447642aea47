"""Choices for traced modules: what of a decoder's plan applies to any graph of ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from satchel.devices.planning.coreml import coreml_target
from satchel.devices.planning.coreml_units import ALL, CPU, ENGINE, GPU, NEWEST
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.target import Place
from satchel.devices.rulebook import rule

if TYPE_CHECKING:
    from satchel.devices.module_plan import ModuleShape

LARGER = {
    "int8": ("nearly twice the size", "CH16"),
    "fp16": ("more than three times the size", "CH16"),
    "fp32": ("seven times the size", "CH16"),
}
PALETTE = ("palette", "4-bit codes with a LUT, the same in every format", "CH02, NE14")


def _weights(on: Decisions, place: Place, format: str) -> str:
    usual, reason, rules = PALETTE
    preferred = place.profile.weights.get(format)
    if preferred in LARGER:
        usual, reason, rules = preferred, "the profile prefers it", "CH01"
    against = {"palette": ("the profile prefers another", "CH01"), **LARGER}
    scheme = on.settle("weights", usual, reason, rules, *(Other(n, *w) for n, w in against.items() if n != usual))
    if scheme == "palette":
        on.follow("small_weights", "int8_fp16", "what is small or sensitive keeps more bits", "CH42", "weights")
    return scheme


def _coreml(on: Decisions, place: Place, shape: ModuleShape) -> None:
    opset = coreml_target(on, place)
    scheme = _weights(on, place, "coreml")
    late = [] if opset.ios >= rule(NEWEST).ios else [never("examples", "several functions came with iOS 18", NEWEST)]
    _program(on, place, shape, scheme, late)


def _program(on: Decisions, place: Place, shape: ModuleShape, scheme: str, against_several: list[Other]) -> None:
    """What Core ML's program is, be it behind ExecuTorch; what speaks against several functions, if anything does."""
    precision = "float32" if scheme == "fp32" else "float16"
    on.follow("activation_dtype", precision, "the floats that the program computes in", "NE05a, CH30", "weights")
    _linear(on, place, shape, scheme)
    _sizes(on, shape, against_several)
    _compute(on, place, scheme)


def _linear(on: Decisions, place: Place, shape: ModuleShape, scheme: str) -> None:
    """Whether linears become 1x1 convolutions over channels first, and so the layout around them."""
    forms = {"linear": ("as_traced", "ops are kept as the module has them", "CH40")}
    forms["conv1x1"] = ("channels_first", "(B, C, 1, S) around each linear, turned there and back", "CH40, NE01")
    if "linear" not in shape.kinds:
        linear = "linear"
        on.follow("linear", linear, "there is none", "CH40", "the module")
    else:
        turned = "each is turned there and back: it pays only where a device was seen to prefer convolutions"
        other = Other("conv1x1", turned, "CH40, NE07")
        linear = on.settle("linear", "linear", "sources conflict, and a layout costs transposes", "CH40, NE07", other)
    rest = [never(forms[key][0], f"that of {key}", forms[key][2]) for key in forms if key != linear]
    on.follow("layout", *forms[linear], "linear", *rest)


def _sizes(on: Decisions, shape: ModuleShape, against_several: list[Other]) -> None:
    if shape.sizes == 1 and not shape.dynamic:
        on.follow("shapes", "fixed", "the module has one size", "CH41", "the module")
        return
    flexible = never("any", "sizes that change leave the engine", "CH41, NE06")
    one = "one function, of the largest example, to which inputs are padded"
    if against_several:
        on.settle("shapes", "largest_example", one, "CH41", flexible, *against_several)
    else:
        told = "a function for each size of the examples, which share their weights"
        single = Other("largest_example", "shorter inputs would be padded to it", "CH41")
        on.settle("shapes", "examples", told, "CH41, NE06", flexible, single)


def _compute(on: Decisions, place: Place, scheme: str) -> None:
    others = [Other(CPU, "slower, and bit for bit the same everywhere", "NE25")]
    others.append(Other(ALL, "Core ML may then move ops between engine and GPU", "NE25"))
    if place.profile.engine and scheme != "fp32":
        gpu = Other(GPU, "the engine is as a rule the most frugal", "NE25")
        on.settle("compute", ENGINE, f"engine {place.profile.engine}", "NE25", gpu, *others)
    else:
        rules, why = ("NE05a, CH30", "the engine computes in fp16") if scheme == "fp32" else ("NE25", "no engine")
        on.settle("compute", GPU, why, rules, never(ENGINE, why, rules), *others)


def _onnx(on: Decisions, place: Place, shape: ModuleShape) -> None:
    scheme = _weights(on, place, "onnx")
    on.settle(
        "target", "opset21", "tensors of uint4, which a palette's indices are", "CH26",
        never("opset17", "it has no tensors of 4 bits", "CH26"),
    )  # fmt: skip
    codes = never("matmul_nbits", "weights are kept as floats", "AC01")
    folded = Other("matmul", "fp32 products, four times the memory, and nothing is rounded", "CH04, AC03")
    if scheme in ("fp16", "fp32"):
        on.settle("linear", "matmul", "weights are kept as floats", "CH01", codes)
        on.follow("activation_dtype", "float32", "products of floats", "AC03", "linear")
    elif on.settle("linear", "matmul_nbits", "int8 kernels for linears", "AC03, CH04", folded) == "matmul_nbits":
        on.follow("activation_dtype", "int8", "of linears: rounded by blocks", "AC03, AC20", "linear")
    else:
        on.follow("activation_dtype", "float32", "products of floats", "AC03", "linear")
    on.follow("shapes", "any" if shape.dynamic else "fixed", "as the module was traced", "CH41", "the module")
    on.follow("layout", "as_traced", "ops are kept as the module has them", "CH40", "the module")
    on.follow("compute", "cpu", place.profile.chip.title, "AC18", "the format", never("gpu", "a CPU graph", "CH21"))


def _executorch(on: Decisions, place: Place, shape: ModuleShape) -> None:
    scheme = _weights(on, place, "executorch")
    if _backend(on, place, scheme) == "coreml":
        opset = rule(NEWEST)
        on.follow("opset", opset.text("opset"), "of the delegate's program", NEWEST, "target")
        oldest = f"iOS {opset.ios}, macOS {opset.number('macos')}"
        on.follow("minimum_os", oldest, "the oldest systems that read the program", NEWEST, "target")
        _program(on, place, shape, scheme, [never("examples", "a method calls one function of the delegate", "CH12")])
        return
    if scheme in ("fp16", "fp32"):
        on.settle("linear", "fp32", "weights are kept as floats", "CH01")
        on.follow("activation_dtype", "float32", "products of floats", "AC20", "linear")
    else:
        floats = Other("fp32", "four times the memory, and nothing is rounded", "CH05, AC20")
        linear = on.settle("linear", "qd8_qc8w", "8-bit codes with a scale a row", "CH05, AC14", floats)
        value = "int8" if linear == "qd8_qc8w" else "float32"
        on.follow("activation_dtype", value, "as the kernels take them", "AC20", "linear")
    on.follow("shapes", "any" if shape.dynamic else "fixed", "as the module was traced", "CH41", "the module")
    on.follow("layout", "as_traced", "ops are kept as the module has them", "CH40", "the module")
    on.follow("compute", "cpu", place.profile.chip.title, "AC18", "target", never("gpu", "XNNPACK is for CPUs", "CH21"))


def _backend(on: Decisions, place: Place, scheme: str) -> str:
    """The delegate: Core ML's where there is one that can take the program, and the weights are codes."""
    if not place.apple:
        against = never("coreml", "Core ML exists on Apple's systems only", "CH12")
    elif place.ios < rule(NEWEST).ios:
        against = never("coreml", "the delegate's programs are written for iOS 18", f"{NEWEST}, CH12")
    elif scheme == "palette":
        cpu = Other("xnnpack", "a byte a weight, and no Neural Engine", "CH12, CH05")
        return on.settle("target", "coreml", "the Core ML delegate takes the codes as they are", "CH12", cpu)
    else:
        against = Other("coreml", "made for palettes", "CH12")
    return on.settle("target", "xnnpack", "kernels for ARM CPUs", "AC13, AC14", against)


PLANNERS: dict[str, Callable[[Decisions, Place, ModuleShape], None]] = {
    "coreml": _coreml,
    "onnx": _onnx,
    "executorch": _executorch,
}
