"""What a package holds: interface, ops, weights, duplicates, and the systems that can read it. Nothing is run."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from satchel.runtime.coreml.survey import FunctionSurvey, Shape, surveys
from satchel.runtime.coreml.versions import MACOS, OPSET_IOS, SPECIFICATION_IOS
from satchel.runtime.coreml.weights import Extent, Weight, weights
from satchel.runtime.mil.package import Package, open_package

LARGEST = 10
ARRAY_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8", 65552: "float16"}
COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}


def inspect_program(path: Path | str) -> dict[str, Any]:
    """Describes a package.

    Args:
        path: a .mlpackage folder, or a .mlmodel file that holds an ML Program.

    Returns:
        A JSON object: "specification_version", "minimum_os", "bytes" (the package on disk), "weight_files", "metadata",
        "default_function", "functions" (interface, states, opset and op counts of each), "weights" (totals and by
        scheme), "largest" and "duplicates". Bytes of weights count data shared by several weights once.

    Raises FormatError where it is not a readable ML Program.
    """
    package = open_package(Path(path))
    functions = surveys(package)
    found = weights(functions)
    return {
        "path": Path(path).name,
        "kind": "mlProgram",
        "specification_version": package.model.specificationVersion,
        "minimum_os": minimum_os(package),
        "bytes": _bytes_on_disk(package),
        "metadata": package.metadata,
        "default_function": package.default_function,
        "functions": [_function(package, f) for f in functions],
        "weights": {**_totals(found), "by_scheme": _by_scheme(found)},
        "weight_files": _weight_files(package, found),
        "largest": [_weight(w) for w in sorted(found, key=lambda w: -w.stored_bytes)[:LARGEST]],
        "duplicates": _duplicates(package, found),
    }


def minimum_ios(package: Package) -> int:
    """The first iOS that reads the package: by its specification version and by the opsets of its functions."""
    opsets = [OPSET_IOS.get(f.opset, 0) for f in package.program.functions.values()]
    return max(SPECIFICATION_IOS.get(package.model.specificationVersion, 0), *opsets)


def minimum_os(package: Package) -> dict[str, str]:
    """The first systems that read the package, such as {"iOS": "18", "macOS": "15"}."""
    ios = minimum_ios(package)
    return {"iOS": str(ios), "macOS": MACOS.get(ios, str(ios))}


def _bytes_on_disk(package: Package) -> int:
    if package.path.is_dir():
        return sum(p.stat().st_size for p in package.path.rglob("*") if p.is_file())
    return package.path.stat().st_size


# ---- functions -----------------------------------------------------------------------------------------------------


def _function(package: Package, function: FunctionSurvey) -> dict[str, Any]:
    described = package.description(function.name)
    features = {f.name: f for f in (*described.input, *described.output, *described.state)}
    outputs = {name: function.types.get(name) for name in function.outputs}
    return {
        "name": function.name,
        "opset": function.opset,
        "inputs": [_value(n, t, features.get(n)) for n, t in function.inputs.items()],
        "outputs": [_value(n, t, features.get(n)) for n, t in outputs.items()],
        "states": [_value(n, t, features.get(n)) for n, t in function.states.items()],
        "ops": dict(Counter(op.type for op in function.ops).most_common()),
        "op_count": len(function.ops),
        "computing_ops": sum(op.computes for op in function.ops),
        "ops_in_blocks": sum(op.depth > 0 for op in function.ops),
    }


def _value(name: str, found: tuple[Any, Shape] | None, feature: Any) -> dict[str, Any]:
    """A value of the interface: as the program types it, and as an app sees it."""
    value: dict[str, Any] = {"name": name}
    if found is not None:
        value |= {"dtype": found[0].name, "shape": ["?" if d is None else d for d in found[1]]}
    if feature is None:
        return value
    described = dict(_described(feature.type))
    if feature.type.isOptional:
        described["optional"] = True
    if feature.shortDescription:
        described["description"] = feature.shortDescription
    return {**value, "kind": "tensor", **described}


def _described(feature_type: Any) -> Iterator[tuple[str, Any]]:
    """What the description of a feature adds to its type in the program."""
    kind = feature_type.WhichOneof("type")
    if kind == "imageType":
        image = feature_type.imageType
        yield "kind", "image"
        yield "colors", COLORS.get(image.colorSpace, str(image.colorSpace))
        yield "size", [image.width, image.height]
        yield from _image_sizes(image)
    elif kind in ("arrayType", "stateType"):
        array = feature_type.arrayType if kind == "arrayType" else feature_type.stateType.array
        yield "declared_dtype", ARRAY_TYPES.get(array.dataType, str(array.dataType))
        yield from _array_shapes(array)
    elif kind:
        yield "kind", kind.removesuffix("Type")


def _image_sizes(image: Any) -> Iterator[tuple[str, Any]]:
    flexible = image.WhichOneof("flexibility")
    if flexible == "enumeratedSizes":
        yield "enumerated", [[s.width, s.height] for s in image.enumeratedSizes.sizes]
    elif flexible:
        yield "ranges", [_range(image.sizeRanges.widths), _range(image.sizeRanges.heights)]


def _array_shapes(array: Any) -> Iterator[tuple[str, Any]]:
    flexible = array.WhichOneof("flexibility")
    if flexible == "enumeratedShapes":
        yield "enumerated", [list(s.shape) for s in array.enumeratedShapes.shapes]
    elif flexible == "shapeRange":
        yield "ranges", [_range(r) for r in array.shapeRange.sizeRanges]
    default = array.WhichOneof("defaultValue")
    if default:
        yield "default", getattr(array, default)


def _range(size: Any) -> list[int]:
    """[least, most]; -1 for no limit."""
    return [size.lowerBound, size.upperBound]


# ---- weights -------------------------------------------------------------------------------------------------------


def _totals(found: Sequence[Weight]) -> dict[str, Any]:
    blob_bytes = sum(e.size for e in merged(e for w in found for e in w.extents))
    immediate = sum(w.immediate_bytes for w in found)
    count = sum(w.elements for w in found)
    return {
        "count": len(found),
        "elements": count,
        "blob_bytes": blob_bytes,
        "immediate_bytes": immediate,
        "expanded_bytes": sum(w.expanded_bytes for w in found),
        "bits_per_weight": round(8 * (blob_bytes + immediate) / count, 4) if count else 0.0,
    }


def _by_scheme(found: Sequence[Weight]) -> list[dict[str, Any]]:
    """Totals of the weights of one type and compression, the largest first."""
    schemes: dict[tuple[str, str], list[Weight]] = defaultdict(list)
    for weight in found:
        schemes[weight.dtype.name, weight.compression].append(weight)
    rows = [{"dtype": d, "compression": c, **_totals(some)} for (d, c), some in schemes.items()]
    return sorted(rows, key=lambda row: -row["blob_bytes"])


def _weight(weight: Weight) -> dict[str, Any]:
    return {
        "name": weight.name,
        "functions": list(dict.fromkeys(function for function, _ in weight.uses)),
        "shape": list(weight.shape),
        "dtype": weight.dtype.name,
        "compression": weight.compression,
        "elements": weight.elements,
        "blob_bytes": weight.blob_bytes,
        "expanded_bytes": weight.expanded_bytes,
        "bits_per_weight": round(weight.bits_per_weight, 4),
    }


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """Extents that overlap, as one; so that no byte is counted twice."""
    result: list[Extent] = []
    for extent in sorted(set(extents)):
        last = result[-1] if result else None
        if last and last.file == extent.file and extent.start < last.start + last.size:
            end = max(last.start + last.size, extent.start + extent.size)
            result[-1] = Extent(last.file, last.start, end - last.start)
        else:
            result.append(extent)
    return result


def _weight_files(package: Package, found: Sequence[Weight]) -> list[dict[str, Any]]:
    """Each file that weights lie in; unused bytes are data that no weight refers to, headers and padding included."""
    used: Counter[str] = Counter()
    for extent in merged(e for w in found for e in w.extents):
        used[extent.file] += extent.size
    sizes = {name: package.blob_file(name) for name in used}
    return [
        {"name": n, "bytes": f.nbytes, "blobs": f.count, "data_bytes": used[n], "other_bytes": f.nbytes - used[n]}
        for n, f in sizes.items()
    ]


# ---- duplicates ----------------------------------------------------------------------------------------------------


def _duplicates(package: Package, found: Sequence[Weight]) -> dict[str, Any]:
    """Data that is stored more than once (a waste), and data that several weights share (none)."""
    names: dict[Extent, list[str]] = defaultdict(list)
    for weight in found:
        for extent in weight.extents:
            names[extent] += [f"{function}/{name}" for function, name in weight.uses]
    twice = [_stored_twice(group, names) for group in _same_bytes(package, names)]
    shared_bytes = sum(e.size for e in merged(e for e, uses in names.items() if len(uses) > 1))
    shared = [{"bytes": e.size, "uses": uses} for e, uses in names.items() if len(uses) > 1]
    return {
        "stored_twice": _listing(twice, "wasted_bytes"),
        "shared": {**_listing(shared, "bytes"), "bytes": shared_bytes},
    }


def _listing(rows: list[dict[str, Any]], by: str) -> dict[str, Any]:
    largest = sorted(rows, key=lambda row: -row[by])[:LARGEST]
    return {"count": len(rows), by: sum(row[by] for row in rows), "largest": largest}


def _stored_twice(group: Sequence[Extent], names: dict[Extent, list[str]]) -> dict[str, Any]:
    size = group[0].size
    return {
        "bytes": size,
        "copies": len(group),
        "wasted_bytes": size * (len(group) - 1),
        "uses": [use for extent in group for use in names[extent]],
    }


def _same_bytes(package: Package, extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    """Groups of extents with the same content at different places."""
    by_size: dict[int, list[Extent]] = defaultdict(list)
    for extent in extents:
        if extent.size:
            by_size[extent.size].append(extent)
    for some in by_size.values():
        if len(some) > 1:
            by_content: dict[bytes, list[Extent]] = defaultdict(list)
            for extent in some:
                by_content[_digest(package, extent)].append(extent)
            yield from (group for group in by_content.values() if len(group) > 1)


def _digest(package: Package, extent: Extent) -> bytes:
    return hashlib.sha256(package.blob_file(extent.file).data(extent.start, extent.size).data).digest()
