"""The weights of an ONNX graph, exchanged one by one for what decodes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from satchel.export.module.formats import Request
from satchel.export.module.weights import Weight
from satchel.export.ops import onnx_palette
from satchel.export.ops.onnx import ACCURACY_LEVEL
from satchel.export.ops.onnx_graph import MICROSOFT, GraphBuilder
from satchel.export.ops.onnx_matrices import ROW_SCALE_BLOCKS, NBits, nbits
from satchel.export.palettize.tensors import Matrix, PalettizedTensor
from satchel.runtime.errors import FormatError


class OnnxWeights:
    """Exchanges weights.

    Args:
        builder: collects initializers and the nodes that decode them.
        request: with the weights, what became of them, and the plan.

    Attributes:
        schemes: name of each weight -> its scheme in the file.
    """

    def __init__(self, builder: GraphBuilder, request: Request) -> None:
        self.schemes: dict[str, str] = {}
        self._builder, self._request = builder, request
        self._kernels = request.plan["linear"] == "matmul_nbits"
        self._flat: dict[str, ir.Value] = {}

    def exchange(self, graph: ir.Graph) -> None:
        """All weights of a graph.

        Raises:
            FormatError: a weight is not there, or has other values than it should.
        """
        for weight in self._request.weights:
            value = graph.initializers.get(weight.name)
            wanted = self._request.program.value(weight.name).numpy()
            if value is None or value.const_value is None or not np.array_equal(value.const_value.numpy(), wanted):
                raise FormatError(
                    "ONNX: a weight was not found in the converted graph", got=f"{weight.name} ({weight.where})",
                    wanted="an initializer of its name and values", hint="give it 16 bits (bits_of), or weights fp16",
                )  # fmt: skip
            del graph.initializers[weight.name]
            self._exchange(graph, weight, value)

    def _exchange(self, graph: ir.Graph, weight: Weight, value: ir.Value) -> None:
        matrix = self._request.store.matrix(weight.name)
        self.schemes[weight.name] = matrix.scheme()
        operands: NBits | None = None
        if self._kernels and isinstance(matrix, PalettizedTensor) and matrix.shape[1] % ROW_SCALE_BLOCKS[-1] == 0:
            for node, x, bias in list(_products(value, weight)):
                operands = operands or nbits(self._builder, weight.name, [weight.name], [matrix])
                self._product(graph, weight, operands, node, x, bias)
            for node in list(_lookups(value)):
                operands = operands or nbits(self._builder, weight.name, [weight.name], [matrix])
                self._lookup(graph, weight, operands, node)
        if value.uses():
            dense = self._dense(weight, matrix)
            value.replace_all_uses_with(dense)

    def _product(
        self, graph: ir.Graph, weight: Weight, operands: NBits, node: ir.Node, x: ir.Value, bias: ir.Value | None
    ) -> None:
        self._builder.require("1.22", "MatMulNBits of 8 bits")
        attributes = {
            "K": operands.columns, "N": operands.rows, "bits": operands.bits, "block_size": operands.block,
            "accuracy_level": ACCURACY_LEVEL,
        }  # fmt: skip
        inputs = [x, operands.codes, operands.scales, *([] if bias is None else [None, None, bias])]
        _replace(graph, node, "MatMulNBits", inputs, attributes, _metadata(weight))

    def _lookup(self, graph: ir.Graph, weight: Weight, operands: NBits, node: ir.Node) -> None:
        self._builder.require("1.23", "GatherBlockQuantized over uint8 of 8 bits, or with zero points")
        if weight.name not in self._flat:
            shape = self._builder.initializer(f"{weight.name}.shape", np.array([operands.rows, -1], np.int64))
            self._flat[weight.name] = self._builder.node("Reshape", f"{weight.name}.flat", [operands.codes, shape])
        attributes = {"bits": operands.bits, "block_size": operands.block, "gather_axis": 0, "quantize_axis": 1}
        inputs = [self._flat[weight.name], node.inputs[1], operands.scales]
        _replace(graph, node, "GatherBlockQuantized", inputs, attributes, _metadata(weight))

    def _dense(self, weight: Weight, matrix: Matrix) -> ir.Value:
        """The parameter in fp32, decoded."""
        build, name = self._builder, weight.name
        metadata = _metadata(weight) | {"satchel.form": weight.form[0], "satchel.groups": str(weight.form[1])}
        if not isinstance(matrix, PalettizedTensor):
            values = weight.parameter(matrix.dequantize())
            kept = build.initializer(f"{name}.weight", values.astype(np.float16 if matrix.bits == 16 else np.float32))
            return build.node("Cast", f"{name}.float", [kept], {"to": int(ir.DataType.FLOAT)}, metadata=metadata)
        codes = build.cast(f"{name}.codes.float", self._codes(weight, matrix), ir.DataType.FLOAT)
        middle = build.initializer("palette.middle", np.array(-128, np.float32))
        centred = build.node("Add", f"{name}.centred", [codes, middle])
        scale = build.initializer(f"{name}.row_scale", _row_scale(weight, matrix))
        return build.node("Mul", f"{name}.float", [centred, scale], metadata=metadata)

    def _codes(self, weight: Weight, matrix: PalettizedTensor) -> ir.Value:
        """uint8 codes + 128 in the parameter's own shape."""
        build, name = self._builder, weight.name
        index = weight.parameter(matrix.index)
        per = onnx_palette.UNIT_BITS.get(matrix.bits, 8) // matrix.bits
        if matrix.bits == 8 or matrix.groups > 1 or index.size % per:
            self.schemes[name] = "int8"  # so few or so odd that they are not packed
            codes = (matrix.codes().astype(np.int16) + 128).astype(np.uint8)
            return build.initializer(f"{name}.code", weight.parameter(codes))
        line = PalettizedTensor(index.reshape(1, -1), matrix.lut, matrix.exponent, np.ones(1, np.float16), matrix.bits)
        flat = onnx_palette.codes(build, name, line, index.size)
        shape = build.initializer(f"shape.{'.'.join(map(str, weight.shape))}", np.array(weight.shape, np.int64))
        return build.node("Reshape", f"{name}.shaped", [flat, shape])


def _row_scale(weight: Weight, matrix: PalettizedTensor) -> np.ndarray:
    """float32, of a shape that is broadcast over the parameter."""
    scale, dims = matrix.row_scale(), len(weight.shape)
    form, groups = weight.form
    if form == "columns":
        return scale.reshape(1, -1)
    if form == "transposed" and groups > 1:
        whole = weight.parameter(np.repeat(scale[:, None], matrix.shape[1], 1))
        return np.ascontiguousarray(whole[(slice(None), slice(None), *[slice(1)] * (dims - 2))])
    if form == "transposed":
        return scale.reshape(1, -1, *[1] * (dims - 2))
    return scale.reshape(-1, *[1] * (dims - 1))


def _metadata(weight: Weight) -> dict[str, str]:
    return {"satchel.names": weight.name, "satchel.rows": str(weight.matrix_shape[0])}


def _products(value: ir.Value, weight: Weight) -> Iterator[tuple[ir.Node, ir.Value, ir.Value | None]]:
    """(node, left side, bias) of each product with the matrix on the right, rows being output channels."""
    for node, place in value.uses():
        if node.op_type == "Transpose" and weight.form[0] == "rows" and len(weight.shape) == 2:
            for user, at in node.outputs[0].uses():
                if user.op_type == "MatMul" and at == 1 and user.inputs[0] is not None:
                    yield user, user.inputs[0], None
        elif node.op_type == "MatMul" and place == 1 and weight.form[0] == "columns" and node.inputs[0] is not None:
            yield node, node.inputs[0], None
        elif node.op_type == "Gemm" and place == 1 and _is_plain_gemm(node, weight) and node.inputs[0] is not None:
            yield node, node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None


def _is_plain_gemm(node: ir.Node, weight: Weight) -> bool:
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    turned = int(given.get("transB", 0)) == (1 if weight.form[0] == "rows" else 0)
    return turned and not given.get("transA", 0) and given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0


def _lookups(value: ir.Value) -> Iterator[ir.Node]:
    for node, place in value.uses():
        axis = node.attributes["axis"].value if "axis" in node.attributes else 0
        if node.op_type == "Gather" and place == 0 and axis == 0:
            yield node


def _replace(
    graph: ir.Graph, node: ir.Node, op: str, inputs: list[ir.Value | None], attributes: dict[str, int],
    metadata: dict[str, str],
) -> None:  # fmt: skip
    """Another op in place of a node, which gives the same value."""
    made = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
    new = ir.Node(MICROSOFT, op, inputs, made, num_outputs=1, name=node.name, metadata_props=metadata)
    old, result = node.outputs[0], new.outputs[0]
    result.name, result.shape, result.type = old.name, old.shape, old.type
    graph.insert_before(node, new)
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    transposes = [value.producer() for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for before in transposes:
        if before is not None and before.op_type == "Transpose" and not before.outputs[0].uses():
            graph.remove(before, safe=True)
