"""What onnxruntime makes of the graph, and the graph's own shortcuts."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import INFO, PALETTES, logits_by, logits_of, plan, tokens, written
from tiny_llama import compress, tiny_llama, weights_of

from satchel.export.formats.onnx import write
from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.errors import FormatError

LAYERS = 3


def _optimized(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx").graph.node


@pytest.mark.parametrize("scheme", [*PALETTES, "int8", "int4", "int4-sym"])
def test_quantized_weights_become_matmulnbits_and_nothing_else_is_left(scheme, tmp_path):
    written(tmp_path, scheme, layers=LAYERS)
    nodes = _optimized(tmp_path)
    kinds = Counter(node.op_type for node in nodes)
    matmuls = [{a.name: a.i for a in n.attribute} for n in nodes if n.op_type == "MatMulNBits"]
    # q+k+v, o, gate+up and down of each layer, and the head
    assert Counter(m["bits"] for m in matmuls) == ({4: 4 * LAYERS, 8: 1} if "int4" in scheme else {8: 4 * LAYERS + 1})
    assert all(m["accuracy_level"] == 4 for m in matmuls)
    assert kinds["DequantizeLinear"] == kinds["MatMul"] == kinds["Expand"] == kinds["Concat"] == kinds["Reshape"] == 0
    assert kinds["Cast"] == 2 and kinds["Gather"] == 2, "only the mask's, and the choice of the last token"
    assert kinds["GatherBlockQuantized"] == 1
    per_layer = {"GroupQueryAttention": 1, "SkipSimplifiedLayerNormalization": 2, "Split": 1, "QuickGelu": 1, "Mul": 1}
    assert all(kinds[kind] == count * LAYERS for kind, count in per_layer.items())


@pytest.mark.parametrize("scheme", PALETTES)
def test_a_palette_is_decoded_by_standard_operators_from_few_bytes(scheme, tmp_path):
    weights = written(tmp_path, scheme)[2]
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    sizes = {
        t.name: int(np.prod(t.dims)) / (2 if t.data_type == onnx.TensorProto.UINT4 else 1) for t in graph.initializer
    }
    for name, matrix in weights.matrices.items():
        parts = (f"{name}.index", f"{name}.code")
        stored = sum(size for key, size in sizes.items() if key.startswith(parts))
        assert stored == matrix.index.size * matrix.bits / 8, name
    assert sum(size for key, size in sizes.items() if key.startswith("palette.")) < 32768, "shared by all matrices"
    standard = {n.op_type for n in graph.node if any("codes" in o or "scale" in o for o in n.output)}
    assert standard <= {"Cast", "Reshape", "Gather", "Concat", "Expand"}


def test_matrices_of_different_kinds_are_not_packed(tmp_path):
    reference, config = tiny_llama(bias=True)
    weights = weights_of(reference, config, "palette")
    name = "layers.0.self_attn.k_proj"
    weights.matrices[name] = compress(name, weights.matrices[name].dequantize(), "int8")
    up = "layers.1.mlp.up_proj"
    weights.matrices[up] = compress(up, weights.matrices[up].dequantize(), "fp16")
    state = reference.state_dict()
    for changed in (name, up):
        state[f"model.{changed}.weight"].copy_(_tensor(weights.matrices[changed].dequantize()))
    entry = write(tmp_path, weights, config, plan(), INFO)
    ids = tokens(12)
    got = logits_by(OnnxBackend(tmp_path, entry, exact=True), ids, 6)
    assert np.abs(got - logits_of(reference, ids)[5:]).max() < 1e-4


def _tensor(values):
    import torch

    return torch.from_numpy(values)


def test_gelu_between_gate_and_up(tmp_path):
    from dataclasses import replace

    import torch

    reference, config = tiny_llama()
    for layer in reference.model.layers:
        layer.mlp.act_fn = torch.nn.GELU(approximate="tanh")
    weights = weights_of(reference, config)
    entry = write(tmp_path, weights, replace(config, activation="gelu_tanh"), plan(), INFO)
    ids = tokens(8)
    assert np.abs(logits_by(OnnxBackend(tmp_path, entry), ids, 4) - logits_of(reference, ids)[3:]).max() < 1e-4


def test_columns_must_divide_into_blocks(tmp_path):
    reference, config = tiny_llama(hidden=72, heads=4, head_dim=16)
    with pytest.raises(FormatError, match="72 columns"):
        write(tmp_path, weights_of(reference, config, "int8"), config, plan(), INFO)
