"""Values quantized as a program runs, against onnxruntime, bit for bit."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from onnx import helper

CODES = {"int8": (-128, 127), "uint8": (0, 255)}


def quantized_and_back(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> list[np.ndarray]:
    """ONNX's QuantizeLinear and DequantizeLinear after it."""
    arrays = {"x": x, "scale": scale, "zero": zero}
    kinds = {n: helper.np_dtype_to_tensor_dtype(v.dtype) for n, v in arrays.items()}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=axis),
    ]
    ends = [helper.make_tensor_value_info("q", kinds["zero"], None), helper.make_tensor_value_info("y", 1, None)]
    inputs = [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, arrays))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(sorted(CODES)), st.booleans(), st.booleans(),
    st.sampled_from([np.float32, np.float16]), st.booleans(), st.integers(0, 999), st.data(),
)  # fmt: skip
def test_quantize_and_back(
    shape: list[int], codes: str, along: bool, shifted: bool, dtype: type, halves: bool, seed: int, data: st.DataObject
) -> None:
    low, high = CODES[codes]
    rng = np.random.default_rng(seed)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1)) if along else None
    each = () if axis is None else (shape[axis],)
    scale = np.array(2.0 ** rng.integers(-3, 2, each) if halves else rng.uniform(0.01, 2, each)).astype(dtype)
    zero = np.array(rng.integers(low, high + 1, each), codes) if shifted else None
    x = (normal(tuple(shape), seed) * 50).astype(dtype)
    x = (np.rint(x) / 2).astype(dtype) if halves else x  # many in the middle between two codes
    optional = {n: v for n, v in {"axis": axis, "zero_point": zero}.items() if v is not None}

    def build(x: mb.Var) -> list[mb.Var]:
        q = mb.quantize(input=x, scale=scale, output_dtype=codes, **optional)
        return [mb.cast(x=q, dtype="int32"), mb.dequantize(input=q, scale=scale, **optional)]

    found, back = outputs(build, {"x": x}, target=ct.target.iOS17)
    given_zero = np.zeros(each, codes) if zero is None else zero
    want = quantized_and_back(x.astype(np.float32), scale.astype(np.float32), given_zero, (axis or 0) % len(shape))
    np.testing.assert_array_equal(found, want[0])
    np.testing.assert_array_equal(back, want[1])


def test_in_fp16_dequantized_values_are_fp16() -> None:
    codes, scale = np.arange(-8, 8, dtype=np.int8), np.float16(0.1)
    build = lambda x: mb.dequantize(input=mb.cast(x=x, dtype="int8"), scale=scale)  # noqa: E731
    (found,) = outputs(build, {"x": codes.astype(np.int32)}, target=ct.target.iOS17, precision="fp16")
    np.testing.assert_array_equal(found, (codes * np.float32(scale)).astype(np.float16))
