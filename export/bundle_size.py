"""How much a bundle holds beside its linears, before anything is written: a budget of bytes must leave room for it.

The program's share was measured on SmolLM2 (30 layers, `satchel export` to each format): Core ML 1.9 MB, of which 1.5
are its two functions, ONNX 0.6 to 0.7 MB, ExecuTorch less than its weights as counted here. A quarter is added.
"""

from __future__ import annotations

from satchel.devices.plan import Plan
from satchel.export.job import Model

PROGRAM_BYTES = {"coreml": 75_000, "onnx": 20_000, "executorch": 20_000}
"""Of a layer in the program, vectors not counted."""
GOLDEN_BYTES = 350_000
PAPERS_BYTES = 100_000
"""Manifest, licence, README."""


def other_bytes(model: Model, plan: Plan) -> int:
    """Bytes of a bundle beside the layers' linears, at the most.

    Args:
        model: to be written.
        plan: of the bundle.
    """
    config = model.config
    tables = [(r, c) for n, (r, c) in config.matrix_shapes().items() if not n.startswith("layers.")]
    embedding = sum(rows * columns + 2 * rows for rows, columns in tables)
    vectors = 4 * sum(n for (n,) in config.vector_shapes().values())
    rotary = 4 * plan.context_length * config.head_dim
    files = model.tokenizer.files(plan.format) if model.tokenizer else {}  # type: ignore[arg-type]  # the plan's are known
    tokenizer = sum(map(len, files.values()))
    program = PROGRAM_BYTES[plan.format] * (config.layers + 2)
    return embedding + vectors + rotary + tokenizer + program + GOLDEN_BYTES + PAPERS_BYTES
