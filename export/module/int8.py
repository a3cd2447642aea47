"""A Program whose weights are int8 codes with a scale a row, as XNNPACK takes them.

linear, x @ W       activations rounded to 8 bits for each token, codes dequantized a row at a time: one kernel
conv2d, one group   activations rounded to 8 bits as a whole
embedding           rows of codes, and of scales
all else            fp32: depthwise, grouped, transposed, 1-D and 3-D convolutions have no such kernel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  # defines the ops
from torch.fx import Graph, Node

from satchel.export.module.program import Program, assign, module
from satchel.export.module.weights import Use, Weight
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import PalettizedTensor

aten, quantized = torch.ops.aten, torch.ops.quantized_decomposed
LOWEST, HIGHEST = -128, 127
SMALLEST_SCALE = float(np.finfo(np.float32).eps)
FLAT = (aten.conv2d.default, aten.conv2d.padding)


@dataclass(frozen=True)
class Stored:
    """What the program holds of a weight.

    Attributes:
        weight: which.
        values: int8 codes, or fp32 values, in the parameter's own shape or as a matrix.
        scale: fp32 [rows]; None beside values.
        form, groups: how `values` lies (runtime/module/layout.py).
    """

    weight: Weight
    values: np.ndarray
    scale: np.ndarray | None
    form: str
    groups: int


def with_int8(
    program: Program, weights: Sequence[Weight], store: WeightStore, *, kernels: bool
) -> tuple[Program, list[Stored]]:
    """The program, and what it holds; without `kernels` all weights but embeddings' are fp32."""
    found = program.copy()
    nodes = {old.name: new for old, new in zip(program.graph.graph.nodes, found.graph.graph.nodes, strict=True)}
    held = []
    for weight in weights:
        matrix = store.matrix(weight.name)
        uses = [replace(use, node=nodes[use.node.name]) for use in weight.uses]
        if isinstance(matrix, PalettizedTensor) and all(_has_kernel(u, weight, kernels=kernels) for u in uses):
            held.append(_exchange(found, weight, matrix, uses))
        else:
            values = weight.parameter(matrix.dequantize())
            assign(found.graph, weight.name, torch.from_numpy(np.ascontiguousarray(values)))
            held.append(Stored(weight, values, None, *weight.form))
    return replace(found, graph=module(found.graph, found.graph.graph)), held


def _has_kernel(use: Use, weight: Weight, *, kernels: bool) -> bool:
    if use.kind == "embedding":
        return True
    flat = use.kind == "convolution" and use.node.target in FLAT and use.groups == 1 and len(weight.shape) == 4
    return kernels and (use.kind in ("linear", "product") or flat)


def _exchange(found: Program, weight: Weight, matrix: PalettizedTensor, uses: Sequence[Use]) -> Stored:
    graph, name = found.graph.graph, weight.name
    form, groups = ("rows", 1) if weight.form[0] == "columns" else weight.form
    codes = matrix.codes() if weight.form[0] == "columns" else weight.parameter(matrix.codes())
    scale = matrix.row_scale()
    assign(found.graph, f"{name}__codes", torch.from_numpy(np.ascontiguousarray(codes)))
    assign(found.graph, f"{name}__scale", torch.from_numpy(scale))
    assign(found.graph, f"{name}__zero", torch.zeros(len(scale), dtype=torch.int64))
    for use in uses:
        with graph.inserting_before(use.node):
            made = _embed(graph, use, name) if use.kind == "embedding" else _product(graph, use, name)
        made.meta = dict(use.node.meta)
        use.node.replace_all_uses_with(made)
        graph.erase_node(use.node)
    return Stored(weight, codes, scale, form, groups)


def _embed(graph: Graph, use: Use, name: str) -> Node:
    ids = use.node.args[1]
    column = graph.call_function(aten.unsqueeze.default, (graph.get_attr(f"{name}__scale"), 1))
    rows = graph.call_function(aten.embedding.default, (graph.get_attr(f"{name}__codes"), ids))
    floats = graph.call_function(aten._to_copy.default, (rows,), {"dtype": torch.float32})
    return graph.call_function(aten.mul.Tensor, (floats, graph.call_function(aten.embedding.default, (column, ids))))


def _product(graph: Graph, use: Use, name: str) -> Node:
    parts = [graph.get_attr(f"{name}__{part}") for part in ("codes", "scale", "zero")]
    weight = graph.call_function(quantized.dequantize_per_channel.default, (*parts, 0, LOWEST, HIGHEST, torch.int8))
    node = use.node
    x: Any = node.args[1] if node.target == aten.addmm.default else node.args[0]
    if use.kind == "convolution":
        return graph.call_function(node.target, (_rounded(graph, x), weight, *node.args[2:]), dict(node.kwargs))
    bias = node.args[0] if node.target == aten.addmm.default else None
    if use.kind == "linear" and len(node.args) > 2:
        bias = node.args[2]
    return graph.call_function(aten.linear.default, (_rounded_by_tokens(graph, x), weight, bias))


def _rounded_by_tokens(graph: Graph, x: Node) -> Node:
    both = graph.call_function(quantized.choose_qparams_per_token_asymmetric.default, (x, torch.int8))
    scale, zero = (graph.call_function(getitem, (both, i)) for i in (0, 1))
    limits = (LOWEST, HIGHEST, torch.int8)
    codes = graph.call_function(quantized.quantize_per_token.default, (x, scale, zero, *limits))
    return graph.call_function(quantized.dequantize_per_token.default, (codes, scale, zero, *limits, torch.float32))


def _rounded(graph: Graph, x: Node) -> Node:
    both = graph.call_function(quantized.choose_qparams.tensor, (x, LOWEST, HIGHEST, SMALLEST_SCALE, torch.int8))
    scale, zero = (graph.call_function(getitem, (both, i)) for i in (0, 1))
    limits = (LOWEST, HIGHEST, torch.int8)
    codes = graph.call_function(quantized.quantize_per_tensor.tensor, (x, scale, zero, *limits))
    return graph.call_function(quantized.dequantize_per_tensor.tensor, (codes, scale, zero, *limits))
