"""Bytes of a model's weights: in the file, in a runtime's memory, and read for each token.

Counts are those of the shape; norm gains and biases are counted with the linears, of which they are a thousandth.
"""

from __future__ import annotations

from dataclasses import dataclass

from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.tower import tower_file_bytes
from satchel.devices.plan import ModelShape, Plan

RUNTIMES = ("onnx", "xnnpack", "neural-engine", "coreml-gpu")
"""What executes a plan, which settles how the weights lie in memory."""
TITLES = {
    "onnx": "ONNX Runtime on the CPU", "xnnpack": "ExecuTorch with XNNPACK on the CPU",
    "neural-engine": "Core ML on the Neural Engine", "coreml-gpu": "Core ML on the GPU",
}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """How many weights there are of each kind.

    Attributes:
        linears: of the layers.
        kv: those of k_proj and v_proj among them.
        embedding: the table.
        head: the same number; it is the same table where `tied`.
        tied: whether the head is the embedding.
    """

    linears: int
    kv: int
    embedding: int
    head: int
    tied: bool

    @property
    def tables(self) -> int:
        """Weights of embedding and head, once where they are tied."""
        return self.embedding if self.tied else self.embedding + self.head


def by_coreml(plan: Plan) -> bool:
    """Whether Core ML executes it, be it behind ExecuTorch."""
    return runtime_of(plan) in ("neural-engine", "coreml-gpu")


def cache_width(plan: Plan) -> int:
    """Bytes of a number in the cache."""
    return 2 if plan.get("cache_dtype", "float16" if by_coreml(plan) else "float32") == "float16" else 4


def count(shape: ModelShape) -> Counts:
    """The weights of a shape by kind."""
    table = shape.vocab_size * shape.hidden_size
    tables = table if shape.tied_embeddings else 2 * table
    kv = 2 * shape.key_channels * shape.hidden_size
    return Counts(max(shape.parameters - tables, 0), kv, table, table, shape.tied_embeddings)


def runtime_of(plan: Plan) -> str:
    """What executes a plan: one of RUNTIMES."""
    if plan.format == "onnx":
        return "onnx"
    if plan.format == "executorch" and plan.get("target", "xnnpack") == "xnnpack":
        return "xnnpack"
    on_engine = plan.get("compute", "cpu") in ("cpuAndNeuralEngine", "all") or plan.format == "executorch"
    return "neural-engine" if on_engine and plan.get("layout", "channels_first") != "plain" else "coreml-gpu"


def linear_bits(plan: Plan, shape: ModelShape, bits: int | None) -> float:
    """Bits of a weight of the linears in the file, scales counted.

    Args:
        plan: whose scheme counts.
        shape: a row's scale is shared by as many weights as the model is wide.
        bits: of every linear of a palette or int4; None for the mixture that an export makes.
    """
    scheme, row_scale = plan["weights"], 16 / shape.hidden_size
    if scheme == "palette" and runtime_of(plan) == "xnnpack":
        return 8 + 2 * row_scale
    kept = plan.get("kv_weights", "by_loss")
    if scheme == "palette" and bits is None and kept != "by_loss":  # an export of effort low
        return 4 + (4 * count(shape).kv / max(count(shape).linears, 1) if kept == "int8" else 0) + row_scale
    if scheme == "palette":
        return constant("palette.bits").value if bits is None else _stored(plan, bits) + row_scale
    if scheme == "int4":
        return constant("int4.bits").value if bits in (None, 4) else 8 + row_scale
    return {"int8": 8 + row_scale, "fp16": 16.0, "fp32": 32.0, "source": constant("source.bits").value}[scheme]


def _stored(plan: Plan, bits: int) -> int:
    """The width that a file has for an index: Core ML stores 3 bits as 4 before iOS18."""
    return 4 if bits == 3 and plan.format == "coreml" and plan.get("target", "iOS18") != "iOS18" else bits


def table_bits(plan: Plan, shape: ModelShape) -> float:
    """Bits of a weight of the embedding and the head in the file."""
    fixed = {"fp16": 16.0, "fp32": 32.0, "source": 8.5}
    return fixed.get(plan["weights"], 8 + 16 / shape.hidden_size)


def file_bytes(plan: Plan, shape: ModelShape, bits: int | None = None) -> int:
    """Of all weights in the bundle, the part that sees included."""
    counts, tower = count(shape), tower_file_bytes(plan, shape, bits, runtime_of(plan))
    return tower + int(counts.linears * linear_bits(plan, shape, bits) + counts.tables * table_bits(plan, shape)) // 8


def expanded(plan: Plan, engine: str) -> bool:
    """Whether Core ML holds the weights as fp16 whatever the file has (docs/neural-engine.md, targets and rule 14)."""
    if plan["weights"] in ("fp16", "fp32") or not by_coreml(plan):
        return False
    old = {"iOS16"} if runtime_of(plan) == "neural-engine" else {"iOS16", "iOS17"}
    return plan.get("target", "iOS18") in old or (plan["weights"] == "int8" and engine == "H13")


def kernel_bits(plan: Plan, shape: ModelShape, bits: int | None, engine: str = "") -> tuple[float, float]:
    """Bits of a weight (of the linears, of the head) as the kernels read it from memory at each token."""
    linear, table = linear_bits(plan, shape, bits), table_bits(plan, shape)
    if expanded(plan, engine):
        return 16.0, 16.0
    if plan.format == "onnx" and plan["weights"] == "palette":
        return 8 + 32 / shape.hidden_size, table  # the LUT is folded into 8-bit codes when the file is loaded
    return linear, table


def read_bytes(plan: Plan, shape: ModelShape, bits: int | None = None, engine: str = "") -> int:
    """Of weights that one token reads: all linears and the head, and a row of the embedding."""
    counts, (linear, head) = count(shape), kernel_bits(plan, shape, bits, engine)
    return int(counts.linears * linear + (counts.head + shape.hidden_size) * head) // 8
