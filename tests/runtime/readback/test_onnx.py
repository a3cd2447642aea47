import onnx
import pytest
from onnx_models import SCHEMES, written

from satchel.export.palettize.tensors import PalettizedTensor
from satchel.runtime.errors import FormatError
from satchel.runtime.readback.onnx import read_weights


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_come_back_bit_for_bit(scheme, tied, tmp_path):
    _, config, weights, _ = written(tmp_path, scheme, tied=tied, bias=not tied)
    records = {record.name: record for record in read_weights(tmp_path / "model.onnx")}
    assert {name: record.shape for name, record in records.items()} == config.matrix_shapes()
    for name, record in records.items():
        assert record.sha256 == weights.matrix(name).digest(), name
        assert record.bits == weights.matrix(name).bits, name
        codes = record.shape[0] * record.shape[1] * record.bits // 8
        assert codes <= record.bytes <= codes * 1.2 + 4 * config.hidden_size + 128 + tables(weights.matrix(name)), name
    assert list(records)[:4] == list(config.matrix_shapes())[:4]


def tables(matrix):
    """Bytes of a palette's LUTs, and for each row which one it uses."""
    return matrix.lut.size + 2 * matrix.shape[0] * (matrix.groups > 1) if isinstance(matrix, PalettizedTensor) else 0


def test_a_changed_byte_changes_one_digest(tmp_path):
    written(tmp_path, "palette")
    before = {record.name: record.sha256 for record in read_weights(tmp_path / "model.onnx")}
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    index = next(t for t in model.graph.initializer if t.name == "layers.1.mlp.up_proj.index")
    data = tmp_path / "model.onnx.data"
    raw = bytearray(data.read_bytes())
    raw[int({e.key: e.value for e in index.external_data}["offset"]) + 3] ^= 1
    data.write_bytes(raw)
    after = {record.name: record.sha256 for record in read_weights(tmp_path / "model.onnx")}
    assert {name for name in before if before[name] != after[name]} == {"layers.1.mlp.up_proj"}


def test_damaged_files(tmp_path):
    path = tmp_path / "model.onnx"
    written(tmp_path, "palette")
    data = (tmp_path / "model.onnx.data").read_bytes()
    (tmp_path / "model.onnx.data").write_bytes(data[:2000])
    with pytest.raises(FormatError, match="cut short"):
        list(read_weights(path))
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        list(read_weights(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match="cannot be read"):
        list(read_weights(path))
    with pytest.raises(FormatError, match="cannot be read"):
        list(read_weights(tmp_path / "missing.onnx"))


def _change(path, change):
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())


def _elsewhere(graph):
    tensor = next(t for t in graph.initializer if t.name.endswith("up_proj.index"))
    tensor.external_data[0].value = "../secret"


def _negative(graph):
    tensor = next(t for t in graph.initializer if t.name.endswith("up_proj.index"))
    tensor.external_data[1].value = "-5"


def _unnamed(graph):
    for node in graph.node:
        del node.metadata_props[:]


def _wrong_rows(graph):
    node = next(n for n in graph.node if n.op_type == "MatMulNBits")
    node.metadata_props[1].value = "64,32"


def _not_constant(graph):
    node = next(n for n in graph.node if n.op_type == "MatMulNBits")
    node.input[1] = "input_ids"


def _loop(graph):
    node = next(n for n in graph.node if n.op_type == "Concat")
    node.input[0] = node.output[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_elsewhere, "outside"),
        (_negative, "cannot be read"),
        (_unnamed, "no weights"),
        (_wrong_rows, "rows of"),
        (_not_constant, "not a constant"),
        (_loop, "cannot be decoded"),
    ],
)
def test_files_that_are_not_ours(change, message, tmp_path):
    written(tmp_path, "palette")
    _change(tmp_path / "model.onnx", change)
    with pytest.raises(FormatError, match=message):
        list(read_weights(tmp_path / "model.onnx"))
