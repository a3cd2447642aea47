"""Block-sparse attention in ONNX: what is added to the scores of GroupQueryAttention.

onnxruntime's own SparseAttention asks for blocks of 16 tokens at least and for one buffer for past and present; this
needs neither, and where the cache is no longer than what is local to every token there is nothing to add.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from satchel.export.families.blocks import Blocks
from satchel.export.ops.onnx_graph import GraphBuilder

FAR = -1e9
"""What is added to the score of a token in a block that is not seen."""


def block_bias(
    graph: GraphBuilder, name: str, blocks: Blocks, heads: int, context: int, positions: ir.Value, total: ir.Value
) -> ir.Value:
    """0 for tokens in the cache that a head sees, FAR for others, fp32 [batch, heads, sequence, total].

    Args:
        graph: where nodes go.
        name: of the value, and how those of the nodes before it begin.
        blocks, heads: of a layer.
        context: tokens that the cache holds.
        positions: int64 [batch, sequence], of this call's tokens.
        total: int32 scalar, tokens in the cache at the end of this call.
    """

    def numbers(key: str, values: object, dtype: type = np.int64) -> ir.Value:
        return graph.initializer(f"blocks.{key}", np.array(values, dtype))

    def node(op: str, key: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return graph.node(op, f"{name}.{key}", list(inputs), attributes)

    size = numbers(f"size.{blocks.size}", blocks.size)
    end = graph.cast(f"{name}.total", total, ir.DataType.INT64)
    slots = node("Range", "slots", numbers("zero", 0), end, numbers("one", 1))
    queries = node("Unsqueeze", "queries", positions, numbers("axes.1.3", [1, 3]))
    distance = node("Sub", "distance", node("Div", "of_query", queries, size), node("Div", "of_key", slots, size))
    near = node("Less", "near", distance, numbers(f"local.{blocks.local}", blocks.local))
    table = graph.initializer(f"{name}.far_keys", blocks.far_keys(heads, context))
    far = node("Gather", "far", table, slots, axis=1)
    seen = node("Or", "seen", near, node("Unsqueeze", "far_by_head", far, numbers("axes.0.2", [0, 2])))
    return graph.node("Where", name, [seen, numbers("seen", 0, np.float32), numbers("unseen", FAR, np.float32)])
