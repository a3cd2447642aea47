"""What usually helps where an op overflows fp16 or gives NaN, by what the op is and what stands around it.

Rules are those of docs/neural-engine.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from satchel.runtime.mil.graph import Graph, Node

SQUARES = ("square", "reduce_sum_square", "reduce_l2_norm", "l2_norm", "pow")
NORMS = ("layer_norm", "instance_norm", "batch_norm", "local_response_norm")
SUMS = ("reduce_sum", "reduce_l1_norm", "reduce_log_sum", "cumsum")
PRODUCTS = ("matmul", "einsum", "scaled_dot_product_attention")
WEIGHTED = ("linear", "conv", "conv_transpose", "lstm", "gru", "rnn")
EXPONENTIALS = ("exp", "exp2", "reduce_log_sum_exp", "sinh", "cosh", "softplus", "softplus_parametric", "elu")
RATIOS = ("real_div", "inverse", "rsqrt", "log", "floor_div", "mod")
NEAR = 6  # how many ops after a product of queries and keys its softmax may come
PASSING = ("add", "mul", "real_div", "cast", "concat", "reshape", "transpose", "select", "slice_by_index", "split")


@dataclass(frozen=True)
class Remedy:
    """Something to try.

    Attributes:
        text: one or two sentences.
        rules: numbers in docs/neural-engine.md.
    """

    text: str
    rules: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.rules:
            return self.text
        numbers = " and ".join(str(r) for r in self.rules)
        return f"{self.text} (docs/neural-engine.md, rule{'s' * (len(self.rules) > 1)} {numbers})"


SQUARE = Remedy(
    "Squares of |x| > 255.9 pass 65504. In a norm, divide the row by its largest |x| (or by a constant) before it is "
    "squared, or take layer_norm of concat(x, -x), which squares inside one op",
    (10, 24),
)
MASK = Remedy("Mask with -1e4 instead of -inf or fp16's lowest number: a sum with a mask must stay above -65504", (8,))
MASKED_ROW = Remedy(
    "A row of which everything is masked with -inf has no softmax. Mask with -1e4, or leave one entry unmasked", (8,)
)
LOGITS = Remedy("Scale the queries by 1 / sqrt(head_dim) before the product with the keys, not its result after it")
GATED = Remedy(
    "Scale one factor down and what follows up: of a gated MLP, up_proj's weights by 1/s and down_proj's by s, which "
    "changes weights alone",
    (24,),
)
RESIDUAL = Remedy(
    "A sum of the residual stream passes 65504: scale the stream down by a constant folded into the weights that write "
    "to it (the embedding and each block's last product); the norms undo it",
    (24,),
)
WEIGHTED_SUM = Remedy(
    "Scale the weight down by a constant and the next linear op's weight up, or normalise the input first", (24,)
)
EXPONENTIAL = Remedy("exp passes 65504 from 11.09 on: subtract the row's largest value first, or use softmax")
SUM = Remedy("Take the mean instead of the sum, or scale by 1/n before summing: fp16 ends at 65504")
RATIO = Remedy(
    "A divisor reached 0: fp16's smallest number is 6e-8, so an epsilon such as 1e-12 vanishes. Take 1e-4 or so, or "
    "a maximum() with it before dividing"
)
NEGATIVE = Remedy("Rounding made the argument negative or zero: take maximum(x, 0), or add an epsilon that fp16 holds")
INFINITIES = Remedy(
    "Infinities met: inf - inf and 0 * inf are NaN. Use -1e4 where -inf stands for a masked value", (8,)
)
CAST = Remedy(
    "The value is beyond fp16 before the cast: keep this part in fp32, off the engine, or scale it down", (5,)
)
INPUT = Remedy("The input itself is beyond fp16: give it in smaller units, or declare it float32 and scale it first")
CONSTANT = Remedy("The constant's scale times its codes passes 65504: compress it again, its scale is likely wrong")
NORM = Remedy("The statistics are beyond fp16, or the variance is 0 with an epsilon that fp16 loses: take 1e-4 or so")
OTHER = Remedy("Scale the op's input down, and its result or the next weight up", (24,))


def remedy(found: Graph, node: Node | None, op: str, kind: str) -> Remedy:
    """What to try.

    Args:
        found: the function that it happened in.
        node: the op; None for an input or a constant.
        op: its type.
        kind: "overflow" or "nan".
    """
    if node is None:
        return INPUT if op == "input" else CONSTANT
    return next(text for applies, text in (NAN if kind == "nan" else OVERFLOW) if applies(found, node))


# --- what an op is in its surroundings ---

Test = Callable[[Graph, Node], bool]


def _is(*ops: str) -> Test:
    return lambda found, node: node.op in ops


def _squares(found: Graph, node: Node) -> bool:
    """Also a product of a value with itself."""
    return node.op in SQUARES or (node.op == "mul" and len(node.sources) == 2 and len(set(node.sources)) == 1)


def _before_softmax(found: Graph, node: Node) -> bool:
    """Whether a softmax comes after it with nothing but what adds masks, scales and moves between them."""
    front = [node]
    for _ in range(NEAR):
        front = [c for n in front for c in found.consumers(n)]
        if any(c.op == "softmax" for c in front):
            return True
        front = [c for c in front if c.op in PASSING]
    return False


def _logits(found: Graph, node: Node) -> bool:
    return node.op in PRODUCTS and _before_softmax(found, node)


def _masks(found: Graph, node: Node) -> bool:
    return node.op in ("add", "sub") and _before_softmax(found, node)


def _masked_row(found: Graph, node: Node) -> bool:
    return node.op in ("softmax", "reduce_log_sum_exp", "scaled_dot_product_attention")


def _any(found: Graph, node: Node) -> bool:
    return True


OVERFLOW: tuple[tuple[Test, Remedy], ...] = (
    (_squares, SQUARE),
    (_logits, LOGITS),
    (_masks, MASK),
    (_is("add", "sub"), RESIDUAL),
    (_is("mul"), GATED),
    (_is(*WEIGHTED, *PRODUCTS), WEIGHTED_SUM),
    (_is(*EXPONENTIALS), EXPONENTIAL),
    (_is(*SUMS, "reduce_mean", "avg_pool"), SUM),
    (_is(*RATIOS), RATIO),
    (_is(*NORMS), NORM),
    (_is("cast"), CAST),
    (_any, OTHER),
)
NAN: tuple[tuple[Test, Remedy], ...] = (
    (_masked_row, MASKED_ROW),
    (_is("sqrt", "log", "rsqrt", "pow", "acos", "asin", "atanh"), NEGATIVE),
    (_is("real_div", "inverse", "mod", "floor_div"), RATIO),
    (_is(*NORMS), NORM),
    (_any, INFINITIES),
)
