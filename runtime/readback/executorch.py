"""Weights read back out of a .pte file.

Codes and scales of each linear are named blobs, under the canonical name and `<name>.scale`; what they mean is read
from the XNNPACK graphs that use them. The embedding is a constant of the program, found through its kernel. Where the
program is Core ML's, its package is taken out and read as any other.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.module.layout import to_matrix
from satchel.runtime.module.names import WEIGHTS_METHOD
from satchel.runtime.pte import Pte, broken, open_pte, unpack_coreml
from satchel.runtime.readback import coreml
from satchel.runtime.strict_json import parse
from satchel.runtime.weights import WeightRecord, digest

EMBEDDINGS = {"quantized_decomposed::embedding_byte": True, "aten::embedding": False}
"""Operators that read the embedding table, and whether a scale a row follows it."""
OWN = "constant."
"""Names of blobs that the exporter made up (a row of ones over the width, a permutation): no weights."""

Found = tuple[str, np.ndarray, int, int]
"""Name, values float32 [rows, columns], bits of a code, bytes in the file."""


def read_weights(path: Path) -> Iterator[WeightRecord]:
    """Every matrix of the file; arguments, order and errors as read_matrices has them."""
    return (record for record, _ in read_matrices(path))


def read_matrices(path: Path) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    """Every matrix of the file and its values, float32 [rows, columns], in the order of the forward pass; a head that
    is the embedding is not told again.

    Raises:
        FormatError: for a file that is not a whole .pte, or not one of this exporter's.
        MissingPackageError: without executorch, whose schema is needed to read it.
    """
    with open_pte(path) as pte:
        table = pte.text_method(WEIGHTS_METHOD)
        if table is not None:
            yield from _listed(pte, parse(table.encode(), WEIGHTS_METHOD))
            return
        seen = set()
        for plan in pte.plans or [pte.plan]:
            for record, values in _of_method(pte, plan):
                if record.name not in seen:
                    seen.add(record.name)
                    yield record, values


def _listed(pte: Pte, table: Any) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    """The weights of a traced module, which the program lists, see export/module/formats/executorch.py."""
    try:
        for name, entry in table.items():
            stored = _placed(pte, entry["values"], entry["dtype"], [entry["shape"][axis] for axis in entry["axes"]])
            values = np.transpose(stored, np.argsort(entry["axes"])).astype(np.float32)
            matrix = to_matrix(values, entry["form"], entry["groups"])
            size = stored.nbytes
            if entry["scale"] is not None:
                scale = _placed(pte, entry["scale"], "float32", [len(matrix)])
                matrix, size = matrix * scale[:, None], size + scale.nbytes
            shape = (matrix.shape[0], matrix.shape[1])
            yield WeightRecord(name, shape, 8 * stored.itemsize, size, digest(matrix)), matrix
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise broken(f"a list of weights that does not fit ({error})") from error


def _placed(pte: Pte, place: dict[str, str], dtype: str, shape: list[int]) -> np.ndarray:
    if "blob" in place:
        return pte.named(place["blob"], dtype, tuple(shape))
    return pte.constant_of(place["constant"], dtype, tuple(shape))


def _of_method(pte: Pte, plan: Any) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    if plan.delegates and plan.delegates[0].id == "CoreMLBackend":
        yield from _coreml(pte, plan)
        return
    for name, values, bits, size in _matrices(pte, plan):
        yield WeightRecord(name, (values.shape[0], values.shape[1]), bits, size, digest(values)), values


def _coreml(pte: Pte, plan: Any) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        yield from coreml.read_matrices(unpack_coreml(pte.payload(plan.delegates[0]), Path(folder)))


def _matrices(pte: Pte, plan: Any) -> Iterator[Found]:
    try:
        yield from _embeddings(pte, plan)
        for delegate in plan.delegates:
            yield from _linears(pte, _xnn_graph(pte.payload(delegate)))
    except (LookupError, AttributeError, ValueError, struct.error) as error:
        raise broken(f"a program whose parts do not fit ({error})") from error


def _embeddings(pte: Pte, plan: Any) -> Iterator[Found]:
    for call in (i.instr_args for i in plan.chains[0].instructions if hasattr(i.instr_args, "op_index")):
        operator = plan.operators[call.op_index].name
        if operator in EMBEDDINGS:
            table = plan.values[call.args[0]].val
            shape = (table.sizes[0], table.sizes[1])
            if not EMBEDDINGS[operator]:
                values = pte.constant(table.data_buffer_idx, "<f4", shape)
                yield "embed_tokens", values, 32, values.nbytes
                continue
            codes = pte.constant(table.data_buffer_idx, "i1", shape)
            scales = pte.constant(plan.values[call.args[1]].val.data_buffer_idx, "<f4", shape[:1])
            yield "embed_tokens", codes * scales[:, None], 8, codes.nbytes + scales.nbytes


def _linears(pte: Pte, graph: dict[str, Any]) -> Iterator[Found]:
    values = {_tensor(v["xvalue_union"])["id_out"]: v["xvalue_union"] for v in graph["xvalues"]}
    names = [constant.get("named_key", "") for constant in graph["constant_data"]]
    for node in (n["xnode_union"] for n in graph["xnodes"] if n["xnode_union_type"] == "XNNFullyConnected"):
        weights = values[node["filter_id"]]
        tensor = _tensor(weights)
        name = names[tensor["constant_buffer_idx"]]
        if not name.startswith(OWN):
            shape = (tensor["dims"][0], tensor["dims"][1])
            yield (name, *_READERS[tensor["datatype"]](pte, name, shape, weights, names))


def _tensor(value: dict[str, Any]) -> dict[str, Any]:
    return dict(value.get("tensor_value", value))


Read = tuple[np.ndarray, int, int]


def _fp32(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    values = pte.named(name, "<f4", shape)
    return values, 32, values.nbytes


def _int8(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    codes = pte.named(name, "i1", shape)
    scales = pte.named(names[weights["quant_params"]["scale_buffer_idx"]], "<f4", shape[:1])
    return codes * scales[:, None], 8, codes.nbytes + scales.nbytes


def _int4(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    (rows, columns), block = shape, weights["quant_params"]["group_size"]
    packed = pte.named(name, "u1", (rows, columns // 2))
    stored = pte.named(names[weights["quant_params"]["scale_buffer_idx"]], "<u2", (rows, columns // block))
    codes = np.stack((packed & 15, packed >> 4), axis=-1).reshape(rows, columns // block, block)
    scales = (stored.astype(np.uint32) << 16).view(np.float32)
    values = (codes.astype(np.float32) - 8) * scales[:, :, None]
    return values.reshape(shape), 4, packed.nbytes + stored.nbytes


_READERS: dict[str, Callable[[Pte, str, tuple[int, int], dict[str, Any], list[str]], Read]] = {
    "xnn_datatype_fp32": _fp32,
    "xnn_datatype_qcint8": _int8,
    "xnn_datatype_qbint4": _int4,
}


def _xnn_graph(payload: bytes) -> dict[str, Any]:
    """The XNNPACK graph of a delegate's payload, by ExecuTorch's schema and its own flatc."""
    import importlib.resources

    import executorch.backends.xnnpack.serialization as serialization
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    offset, size = struct.unpack_from("<II", payload, 10)
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(importlib.resources.files(serialization).joinpath("schema.fbs").read_bytes())
        binary.write_bytes(payload[offset : offset + size])
        _flatc_decompile(folder, str(schema), str(binary))
        return dict(json.loads(Path(folder, "graph.json").read_bytes()))
