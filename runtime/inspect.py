"""What a bundle or a single model file holds, and the weights as they are read back out of the file itself."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from satchel.runtime.bundle import MANIFEST, Bundle
from satchel.runtime.errors import BundleError, FormatError, MissingPackageError
from satchel.runtime.manifest import ChunkEntry, Manifest, ModelEntry
from satchel.runtime.module.bundle import ModuleBundle, open_any
from satchel.runtime.module.summary import describe_module
from satchel.runtime.summary import summary
from satchel.runtime.weights import WeightRecord

READERS: dict[str, str] = {
    "coreml": "satchel.runtime.readback.coreml",
    "onnx": "satchel.runtime.readback.onnx",
    "executorch": "satchel.runtime.readback.executorch",
}
"""Format -> module with `read_weights(path) -> Iterator[WeightRecord]`."""

FORMATS = {".mlpackage": "coreml", ".onnx": "onnx", ".pte": "executorch"}
"""Ending of a model file -> format."""


def inspect_path(path: str | Path, weights: bool = False) -> dict[str, Any]:
    """Describes a bundle or a model file.

    Args:
        path: a bundle's folder, a .onnx or .pte file, or a .mlpackage folder.
        weights: also read every matrix back out of the model file.

    Returns:
        A JSON object: "kind" ("bundle" or "model"), "format", "bytes"; of a bundle also the manifest's essentials, its
        choices, schemes and files, and of a Core ML bundle a forecast of its placement; with `weights` a list of
        WeightRecord objects under "tensors".

    Raises:
        BundleError: neither a bundle nor a model file, or an altered bundle.
        FormatError: a model file that cannot be read.
    """
    path = Path(path)
    form = FORMATS.get(path.suffix)
    if form and path.exists():
        described: dict[str, Any] = {"kind": "model", "path": path.name, "format": form, "bytes": size_of(path)}
        found = read_weights(path, form)
    elif path.is_dir() and (path / MANIFEST).exists():
        bundle = open_any(path)
        if isinstance(bundle, ModuleBundle):
            described, found = describe_module(bundle) | _placed(bundle), _module_weights(bundle)
        else:
            described, found = _describe(bundle), entry_weights(path, bundle.manifest.entry)
    else:
        wanted = "a .satchel folder, .onnx, .pte or .mlpackage"
        raise BundleError("nothing here that can be inspected", got=path, wanted=wanted)
    if weights:
        described["tensors"] = [record.to_json() for record in found]
    return described


def entry_weights(folder: Path, entry: ModelEntry) -> Iterator[WeightRecord]:
    """Every matrix of a bundle's model, of all its packages in the order in which they are called.

    Args:
        folder: of the bundle.
        entry: of its manifest.
    """
    if entry.vision:
        parts = sorted({entry.vision.encoder.path, entry.vision.embedding.path} - set(entry.paths))
        seeing = (read_weights(folder / path, entry.format) for path in parts)
        return _once(itertools.chain(*seeing, entry_weights(folder, replace(entry, vision=None))))
    if not entry.chunks:
        return read_weights(folder / entry.path, entry.format)
    calls = ((folder / chunk.path, chunk.functions["decode"]) for chunk in entry.chunks)
    return itertools.chain.from_iterable(read_weights(path, entry.format, function) for path, function in calls)


def _module_weights(bundle: ModuleBundle) -> Iterator[WeightRecord]:
    """Every matrix of a module, of all its parts."""
    files = bundle.manifest.module.files.values()
    return _once(
        itertools.chain.from_iterable(read_weights(bundle.folder / f.path, bundle.manifest.format) for f in files)
    )


def _once(records: Iterator[WeightRecord]) -> Iterator[WeightRecord]:
    """Without a second record of a matrix that two files hold, as a tied embedding."""
    names: set[str] = set()
    for record in records:
        if record.name not in names:
            names.add(record.name)
            yield record


def read_weights(model: Path, form: str, function: str | None = None) -> Iterator[WeightRecord]:
    """Every matrix of a model file, by canonical name, as the file says.

    Args:
        model: the file or .mlpackage.
        form: its format.
        function: of a Core ML package, instead of its default one.
    """
    if form not in READERS:
        raise FormatError("no reader for this format", got=form, wanted=sorted(READERS))
    try:
        module = importlib.import_module(READERS[form])
    except ImportError as error:
        raise MissingPackageError(f"a package to read {form} is missing", got=error) from error
    read: Callable[..., Iterator[WeightRecord]] = module.read_weights
    return read(model) if function is None else read(model, function)


def size_of(path: Path) -> int:
    """Bytes of a file, of all files below a folder, or of an ONNX file with its external data."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    data = path.with_name(path.name + ".data")
    beside = data.stat().st_size if path.suffix == ".onnx" and data.is_file() else 0
    return path.stat().st_size + beside


def _describe(bundle: Bundle) -> dict[str, Any]:
    manifest, chosen = bundle.manifest.to_json(), bundle.manifest.weights.selection
    chunks = [_chunk(bundle.folder, chunk) for chunk in bundle.manifest.entry.chunks or ()]
    return {
        "kind": "bundle",
        "path": bundle.folder.name,
        **summary(bundle),
        "source": manifest["model"]["source"],
        "entry": manifest["entry"],
        **({"chunks": chunks} if chunks else {}),
        **_placed(bundle),
        "choices": manifest["plan"]["choices"],
        "schemes": manifest["weights"]["tensors"],
        **({"bits": str(chosen), "selection": manifest["weights"]["selection"]} if chosen else {}),
        "files": manifest["files"],
    }


def _placed(bundle: Bundle | ModuleBundle) -> dict[str, list[dict[str, Any]] | str]:
    """Of Core ML a forecast of where the functions run, or why there is none."""
    from satchel.runtime.coreml.placement.bundles import forecast_bundle

    manifest = bundle.manifest
    if manifest.plan.format != "coreml":
        return {}
    paths = manifest.entry.paths if isinstance(manifest, Manifest) else [f.path for f in manifest.module.files.values()]
    try:
        rows = forecast_bundle(bundle.folder, paths, manifest.plan.get("compute", ""), manifest.plan.device)
        return {"placement": list(rows)}
    except FormatError as error:
        return {"placement": f"no forecast: {error.what}"}


def _chunk(folder: Path, chunk: ChunkEntry) -> dict[str, Any]:
    """One call of a model of several packages."""
    last = chunk.first_layer + chunk.layers - 1
    return {
        "package": chunk.path,
        "functions": ", ".join(chunk.functions[role] for role in sorted(chunk.functions)),
        "layers": f"{chunk.first_layer} to {last}" if chunk.layers else "none: looks up ids",
        "bytes": size_of(folder / chunk.path),
    }
