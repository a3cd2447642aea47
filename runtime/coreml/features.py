"""What an app sees of a function: its inputs, outputs and states, as the model's description has them.

Field numbers and meanings: coremltools, mlmodel/format/FeatureTypes.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.values import is_state, spec

Kind = Literal["multiarray", "image", "int64", "double", "string", "dictionary", "sequence", "state"]
Range = tuple[int, int | None]  # both included; None is no upper end
ARRAY_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8", 65552: "float16"}
COLOR_SPACES = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
MAX_DIMENSION = 2**31 - 1


@dataclass(frozen=True)
class Feature:
    """One input, output or state.

    Attributes:
        name: of the feature.
        kind: what it is; "multiarray" is an array of numbers.
        shape: of an array that holds it: the fixed or the default one; a string stands for a dimension that is known
            only when the program runs. An image is (height, width), or (height, width, 3) in color.
        dtype: numpy's name. Of a dictionary it is the type of its keys, whose values are float64.
        ranges: for each dimension the sizes that are allowed; empty where `shape` is the only one, or `shapes` are.
        shapes: all that are allowed, where they are enumerated.
        color: "RGB", "BGR", "GRAYSCALE" or "GRAYSCALE_FLOAT16" for an image; else "".
        optional: whether an input may be left out; then it is `default` everywhere.
        default: the value of an optional input that is left out.
        about: what the author says about it.
    """

    name: str
    kind: Kind
    shape: tuple[int | str, ...] = ()
    dtype: str = "float32"
    ranges: tuple[Range, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    color: str = ""
    optional: bool = False
    default: float = 0
    about: str = ""

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be given."""
        if self.shapes:
            return shape in self.shapes
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                low <= size and (high is None or size <= high)
                for size, (low, high) in zip(shape, self.ranges, strict=True)
            )
        return len(shape) == len(self.shape) and all(
            isinstance(want, str) or want == size for want, size in zip(self.shape, shape, strict=True)
        )

    def allowed(self) -> str:
        """The shapes that are allowed, in words: "[1, 3]", "[1, 1..128]", "[1, 1...]", "[1, 3] or [1, 5]"."""
        if self.shapes:
            return " or ".join(str(list(s)) for s in self.shapes)
        if self.ranges:
            return f"[{', '.join(_range_words(r) for r in self.ranges)}]"
        return f"[{', '.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """The features of a function, each by its name, in the model's order.

    Attributes:
        tensors: input name -> the type that the program itself gives it.
        predicted_feature: name of the output that holds a classifier's label, or "".
        predicted_probabilities: name of the output that holds its probabilities, or "".
    """

    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    states: Mapping[str, Feature]
    tensors: Mapping[str, TensorSpec]
    predicted_feature: str = ""
    predicted_probabilities: str = ""


def read_signature(package: Package, function: str) -> Signature:
    """How an app calls `function`.

    Where the description does not name a feature of the program, its type in the program is taken. Raises FormatError
    where it names one that the program lacks, or one of an unknown type.
    """
    described = package.description(function)
    named = package.function(function).inputs
    inputs = {n.name: spec(n) for n in named if not is_state(n.type)}
    states = {n.name: spec(n) for n in named if is_state(n.type)}
    outputs = _program_outputs(package, function)
    return Signature(
        _features(function, described.input, inputs),
        _features(function, described.output, outputs, all_of_them=False),
        _features(function, described.state, states),
        inputs,
        described.predictedFeatureName,
        described.predictedProbabilitiesName,
    )


def _features(
    function: str, described: Iterable[Any], program: Mapping[str, TensorSpec | None], all_of_them: bool = True
) -> dict[str, Feature]:
    found = {d.name: _feature(d, program.get(d.name)) for d in described}
    lacking = sorted(set(found) - set(program))
    if lacking:
        raise FormatError(f"features of function {function}", got=f"{lacking} described", wanted=sorted(program))
    if found and not all_of_them:
        return found
    return found | {n: _undescribed(n, s) for n, s in program.items() if n not in found}


def _undescribed(name: str, program: TensorSpec | None) -> Feature:
    if program is None:
        raise FormatError(f"output {name}", got="no description, and no tensor", wanted="a described feature")
    return Feature(name, "multiarray", program.shape, program.dtype)


def _program_outputs(package: Package, function: str) -> dict[str, TensorSpec | None]:
    """The outputs of the program: name -> type; None for one that is no tensor, such as a dictionary."""
    block = package.block(function)
    wanted = set(block.outputs)
    typed = {i.name: i for i in package.function(function).inputs if i.name in wanted}
    typed |= {o.name: o for op in block.operations for o in op.outputs if o.name in wanted}
    return {
        name: spec(typed[name]) if name in typed and typed[name].type.WhichOneof("type") == "tensorType" else None
        for name in block.outputs
    }


# ---- one feature -----------------------------------------------------------------------------------------------------


def _feature(described: Any, program: TensorSpec | None) -> Feature:
    name, about, proto = described.name, described.shortDescription, described.type
    match proto.WhichOneof("type"):
        case "arrayType":
            return _array(name, "multiarray", proto.arrayType, program, proto.isOptional, about)
        case "stateType":
            return _array(name, "state", proto.stateType.array, program, False, about)
        case "imageType":
            return _image(name, proto.imageType, proto.isOptional, about)
        case "dictionaryType":
            keys = "int64" if proto.dictionaryType.WhichOneof("key") == "int64Key" else "str"
            return Feature(name, "dictionary", (), keys, optional=proto.isOptional, about=about)
        case "sequenceType":
            return _sequence(name, proto.sequenceType, proto.isOptional, about)
        case "int64Type":
            return Feature(name, "int64", (), "int64", optional=proto.isOptional, about=about)
        case "doubleType":
            return Feature(name, "double", (), "float64", optional=proto.isOptional, about=about)
        case "stringType":
            return Feature(name, "string", (), "str", optional=proto.isOptional, about=about)
    raise FormatError(f"type of feature {name}", got="none that is known", wanted="an array, image, number, string...")


def _array(name: str, kind: Kind, array: Any, program: TensorSpec | None, optional: bool, about: str) -> Feature:
    if array.dataType not in ARRAY_TYPES and (array.dataType or program is None):
        raise FormatError(f"element type of feature {name}", got=array.dataType, wanted=list(ARRAY_TYPES.values()))
    dtype = ARRAY_TYPES[array.dataType] if array.dataType or program is None else program.dtype
    ranges = tuple(_range(name, r) for r in array.shapeRange.sizeRanges)
    shapes = tuple(_sizes(name, s.shape) for s in array.enumeratedShapes.shapes)
    shape: tuple[int | str, ...] = _sizes(name, array.shape)
    if not shape and ranges:
        shape = tuple(low for low, _ in ranges)
    elif not shape and shapes:
        shape = shapes[0]
    elif not shape and program is not None:
        shape = program.shape
    filled = array.WhichOneof("defaultValue")
    default = getattr(array, filled) if filled else 0
    return Feature(name, kind, shape, dtype, ranges, shapes, "", optional, default, about)


def _image(name: str, image: Any, optional: bool, about: str) -> Feature:
    if image.colorSpace not in COLOR_SPACES:
        raise FormatError(f"color space of image {name}", got=image.colorSpace, wanted=list(COLOR_SPACES.values()))
    color = COLOR_SPACES[image.colorSpace]
    channels = (3,) if color in ("RGB", "BGR") else ()
    shapes = tuple((*_sizes(name, (s.height, s.width)), *channels) for s in image.enumeratedSizes.sizes)
    ranges: tuple[Range, ...] = ()
    if image.WhichOneof("flexibility") == "sizeRanges":
        flexible = image.sizeRanges
        ranges = (_range(name, flexible.heights), _range(name, flexible.widths), *((c, c) for c in channels))
    shape: tuple[int, ...] = (*_sizes(name, (image.height, image.width)), *channels)
    if not (image.height and image.width) and (shapes or ranges):
        shape = shapes[0] if shapes else tuple(low for low, _ in ranges)
    dtype = "float16" if color == "GRAYSCALE_FLOAT16" else "uint8"
    return Feature(name, "image", shape, dtype, ranges, shapes, color, optional, 0, about)


def _sequence(name: str, sequence: Any, optional: bool, about: str) -> Feature:
    dtype = "int64" if sequence.WhichOneof("type") == "int64Type" else "str"
    ranges = (_range(name, sequence.sizeRange),) if sequence.HasField("sizeRange") else ()
    return Feature(name, "sequence", ("length",), dtype, ranges, optional=optional, about=about)


def _range(name: str, size: Any) -> Range:
    low, high = int(size.lowerBound), None if size.upperBound < 0 else int(size.upperBound)
    if low > MAX_DIMENSION or (high is not None and high < low):
        raise FormatError(f"range of sizes of feature {name}", got=_range_words((low, high)), wanted="a range")
    return low, high


def _sizes(name: str, shape: Iterable[int]) -> tuple[int, ...]:
    sizes = tuple(int(d) for d in shape)
    if any(not 0 <= d <= MAX_DIMENSION for d in sizes):
        raise FormatError(f"shape of feature {name}", got=list(sizes), wanted=f"sizes of 0 to {MAX_DIMENSION}")
    return sizes


def _range_words(size: Range) -> str:
    low, high = size
    if high is None:
        return f"{low}..."
    return str(low) if low == high else f"{low}..{high}"
