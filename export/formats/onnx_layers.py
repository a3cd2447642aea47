"""layers.onnx: the model once more, with the residual stream behind each layer as further outputs. Its weights are
those of model.onnx.data, so it adds a graph's size to a bundle."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from satchel.export.ops.onnx_values import Sum, Tensor


def add_outputs(model: ir.Model, behind: Sequence[Tensor], channels: int) -> None:
    """Makes what lies behind each layer an output `layer.N` of the model, [batch, sequence, channels].

    Args:
        model: which is changed; nothing else of it is.
        behind: what the decoder's blocks gave, in order, as the op set left it.
        channels: of the residual stream.
    """
    for number, x in enumerate(behind):
        value = _summed(model, x)
        value.name = f"layer.{number}"
        value.shape = ir.Shape(["batch_size", "sequence_length", channels])
        value.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)


def _summed(model: ir.Model, x: Tensor) -> ir.Value:
    """The value that a norm has added up along the way; the last norm keeps none, so it is added up here."""
    if isinstance(x, ir.Value):
        return x
    assert isinstance(x, Sum)
    if x.total is not None:
        return x.total
    node = ir.node("Add", [x.x, x.y])
    model.graph.append(node)
    return node.outputs[0]
