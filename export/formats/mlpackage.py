"""A MIL program and its weight file -> a .mlpackage folder, without coremltools' converter.

    model.mlpackage/Manifest.json
    model.mlpackage/Data/com.apple.CoreML/model.mlmodel         the model description and the program, protobuf
    model.mlpackage/Data/com.apple.CoreML/weights/weight.bin

coremltools gives the manifest random identifiers; here they come from the content, so that the same model is the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satchel.export.ops.mil_builder import (
    CoreMLProtoExporter,
    MILProtoExporter,
    Program,
    Var,
    create_file_value_tensor,
    types_to_proto_primitive,
)
from satchel.export.ops.mil_store import BlobStore

DATA = Path("Data") / "com.apple.CoreML"
WEIGHTS = DATA / "weights" / "weight.bin"
_IN_PROGRAM = "@model_path/weights/weight.bin"


class _Exporter(MILProtoExporter):  # type: ignore[misc]
    """Names blobs that are in the file already, and writes none."""

    def __init__(self, program: Program, store: BlobStore, version: int) -> None:
        super().__init__(program, str(store.path.parent), version)
        self._store = store

    def create_file_value(self, var: Var) -> Any:
        """The place of the blob that a stand-in stands for."""
        key = var.op.weight_id
        assert key is not None, f"{var.name} has {var.val.size} elements and did not go through the store"
        primitive = types_to_proto_primitive(var.sym_type.get_primitive())
        return create_file_value_tensor(_IN_PROGRAM, self._store.offset(key), var.val.shape, primitive)


def to_proto(program: Program, store: BlobStore, version: int) -> Any:
    """The model as coremltools' protobuf message (proto.Model_pb2.Model).

    Args:
        program: built with stand-ins of `store`.
        store: closed.
        version: the specification version, such as 9 for iOS18.
    """
    program.skip_all_passes = True
    mil = _Exporter(program, store, version).export()
    exporter = CoreMLProtoExporter(program, mil, None, None, None, "mlprogram", "milinternal", version)
    return exporter.export(version)


def save(model: Any, package: Path) -> None:
    """Writes the model and the manifest beside the weights, which are in place.

    Args:
        model: from `to_proto`.
        package: the .mlpackage folder.
    """
    data = model.SerializeToString(deterministic=True)
    (package / DATA / "model.mlmodel").write_bytes(data)
    content = hashlib.sha256(data).digest()
    (package / "Manifest.json").write_text(json.dumps(_manifest(content), indent=4, sort_keys=True) + "\n")


def _manifest(content: bytes) -> Mapping[str, Any]:
    def entry(name: str, description: str) -> dict[str, str]:
        path = f"com.apple.CoreML/{name}"
        return {"author": "com.apple.CoreML", "description": description, "name": name, "path": path}

    root, weights = (str(uuid.UUID(bytes=content[i : i + 16], version=4)).upper() for i in (0, 16))
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            root: entry("model.mlmodel", "CoreML Model Specification"),
            weights: entry("weights", "CoreML Model Weights"),
        },
        "rootModelIdentifier": root,
    }


def operations(model: Any) -> Iterator[tuple[str, Any]]:
    """(function, operation) of every operation in the program, in order."""
    for name, function in sorted(model.mlProgram.functions.items()):
        for operation in function.block_specializations[function.opset].operations:
            yield name, operation


@dataclass(frozen=True)
class Expected:
    """What a function must have.

    Attributes:
        constexprs: names of its compressed matrices.
        states: names; each is written exactly once.
    """

    constexprs: set[str]
    states: set[str]


def check(model: Any, functions: Mapping[str, Expected]) -> None:
    """Holds what a pass over stand-ins, or a lost write, would break; a failure is a fault of this exporter.

    Args:
        model: from `to_proto`.
        functions: all that there are, by name.
    """
    found: dict[str, set[str]] = {name: set() for name in functions}
    writes: dict[str, Counter[str]] = {name: Counter() for name in functions}
    for function, operation in operations(model):
        if operation.type.startswith("constexpr_"):
            found[function].add(operation.outputs[0].name)
        elif operation.type == "write_state":
            writes[function][operation.inputs["input"].arguments[0].name] += 1
    assert found == {n: f.constexprs for n, f in functions.items()}, "compressed matrices were merged or lost"
    assert writes == {n: Counter(f.states) for n, f in functions.items()}, f"not one write a state: {writes}"
