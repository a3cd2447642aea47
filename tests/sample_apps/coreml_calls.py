"""Writes what SatchelKit's Core ML chain is held to: tiny bundles of every form, and how Python's backend calls them.

    python tests/sample_apps/coreml_calls.py FOLDER

For each form a bundle FOLDER/<form>.satchel, FOLDER/<form>.json with every call of a package in order (function, inputs
and outputs by name, with shape, dtype and place) and the logits, and FOLDER/<form>.bin, which holds the numbers. Inputs
and outputs are the interpreter's in fp16, as a device has them, so that a chain that calls alike has equal bytes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satchel.export.pipeline import export
from satchel.runtime.backends.coreml import CoremlBackend, calls_of
from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.manifest import ChunkEntry

HERE = Path(__file__).parent
CONTEXT = 128
FORMS: dict[str, dict[str, str]] = {
    "state": {"target": "iOS18", "cache": "state"},
    "io": {"target": "iOS17"},
    "chunks": {"target": "iOS18", "cache": "state", "chunks": "2"},
    "chunks-io": {"target": "iOS17", "chunks": "2"},
}

# Appends by prefill (a list) and by step (a number); None empties the cache. Padded, exact, short and full calls occur.
STEPS: Sequence[list[int] | int | None] = (
    list(range(5, 25)), 7, 8, None, list(range(40, 43)), 1, list(range(60, 130)), 2, list(range(50)), 3,
)  # fmt: skip


def bundles(folder: Path) -> dict[str, Bundle]:
    """A tiny Llama in each form, exported into FOLDER/<form>.satchel."""
    sys.path.insert(0, str(HERE.parent / "support"))
    from tiny_folder import tiny_folder  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as scratch:
        source = tiny_folder(Path(scratch) / "tiny-llama")
        for form, roles in FORMS.items():
            options: dict[str, Any] = {"overrides": roles, "context": CONTEXT, "effort": "low"}
            made = export(source, "iphone-15-pro", output=Path(scratch) / form, **options)[0].folder
            shutil.move(made, folder / f"{form}.satchel")
    return {form: open_bundle(folder / f"{form}.satchel") for form in FORMS}


class Recorder:
    """Stands between the backend and a package, and writes down what passes."""

    def __init__(self, runner: Any, path: str, chunks: Sequence[ChunkEntry], record: Record) -> None:
        self._runner, self._path, self._record = runner, path, record
        self._chunks = [chunk for chunk in chunks if chunk.path == path]

    def reset(self) -> None:
        """Empties the states."""
        self._runner.reset()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        chunk = next(c for c in self._chunks if function in c.functions.values())
        types = {spec.name: spec.dtype for spec in (*chunk.inputs, *chunk.outputs)}
        given = {name: self._record.add(value, types[name]) for name, value in inputs.items()}
        outputs = self._runner(function, inputs)
        found = {name: self._record.add(value, types[name]) for name, value in outputs.items()}
        self._record.calls.append({"path": self._path, "function": function, "inputs": given, "outputs": found})
        return outputs


class Record:
    """Calls, and the numbers of all of them, one after the other."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.data = bytearray()

    def add(self, value: np.ndarray, dtype: str) -> dict[str, Any]:
        """Where the numbers of an array are."""
        place = len(self.data)
        self.data += np.ascontiguousarray(value, dtype=np.dtype(dtype).newbyteorder("<")).tobytes()
        return {"shape": list(value.shape), "dtype": dtype, "offset": place}


def record(bundle: Bundle) -> tuple[dict[str, Any], bytes]:
    """Every call that Python's backend makes for STEPS, and the logits after each."""
    entry = bundle.manifest.entry
    backend, found = CoremlBackend(bundle.folder, entry, precision="fp16"), Record()
    chunks = calls_of(entry)
    for call in backend._calls:
        call.runner = Recorder(call.runner, call.chunk.path, chunks, found)
    logits = [found.add(row, "float32") for row in _answers(backend)]
    return {"steps": list(STEPS), "calls": found.calls, "logits": logits}, bytes(found.data)


def _answers(backend: CoremlBackend) -> Iterator[np.ndarray]:
    for step in STEPS:
        if step is None:
            backend.reset()
        else:
            yield backend.step(step) if isinstance(step, int) else backend.prefill(step)


def write(folder: Path) -> None:
    """All forms."""
    folder.mkdir(parents=True, exist_ok=True)
    for form, bundle in bundles(folder).items():
        value, data = record(bundle)
        (folder / f"{form}.json").write_text(json.dumps(value))
        (folder / f"{form}.bin").write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
