"""How much a bundle holds beside its linears, before anything is written: a budget of bytes must leave room for it.

The program's share was measured on bundles of 2 to 30 layers with 2 to 32 KV heads in each format; a tenth is added.
Core ML's grows with the KV heads, since attention is written out head by head for the Neural Engine.
"""

from __future__ import annotations

from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.golden import golden_prompts, steps_for
from satchel.export.job import Model
from satchel.export.palettize.spec import EmbeddingName
from satchel.runtime.golden import TOP

PROGRAM_BYTES = {"coreml": (33_000, 6_700), "onnx": (16_000, 0), "executorch": (23_000, 3_300), "xnnpack": (11_000, 0)}
"""Of a layer in the program, vectors not counted: in any case, and for each KV head. "executorch" is its Core ML
delegate, whose program has one function."""
MORE_BYTES = {"coreml": 8_000, "onnx": 3_500, "executorch": 8_000, "xnnpack": 2_500}
"""Of a layer for each thing that most models lack: norms of queries and keys, norms behind, capped scores. Measured on
Gemma 2 and 3 and StableLM: 9,400 to 14,000 in Core ML, 1,200 to 6,300 in ONNX, 3,100 to 4,300 in XNNPACK for the two
that each of them has."""
EMBEDDING_BYTES: dict[EmbeddingName, int] = {"int8": 1, "fp16": 2, "fp32": 4}
"""Of a weight of the embedding and the head."""
ENDS = 3
"""What comes before and after the layers, counted as so many of them."""
PAPERS_BYTES = 40_000
"""Manifest and README, without what they say of each layer."""
LAYER_IN_MANIFEST = 1_500


def other_bytes(model: Model, plan: Plan, embedding: EmbeddingName = "int8") -> int:
    """Bytes of a bundle beside the layers' linears, at the most.

    Args:
        model: to be written.
        plan: of the bundle.
        embedding: the scheme of the embedding and the head.
    """
    config = model.config
    tables = [(r, c) for n, (r, c) in config.matrix_shapes().items() if not n.startswith("layers.")]
    chunks = int(plan.get("chunks", "1"))
    copies = 2 if _has_two_tables(model, plan, chunks) else 1
    ends = copies * sum(rows * columns * EMBEDDING_BYTES[embedding] + 2 * rows for rows, columns in tables)
    vectors = 4 * sum(n for (n,) in config.vector_shapes().values())
    rotary = 4 * plan.context_length * config.head_dim * chunks * len(config.ropes())
    files = model.tokenizer.files(plan.format) if model.tokenizer else {}  # type: ignore[arg-type]  # the plan's are known
    tokenizer = sum(map(len, files.values()))
    xnnpack = plan.format == "executorch" and plan["target"] == "xnnpack"
    kind = "xnnpack" if xnnpack else plan.format
    layer, head = PROGRAM_BYTES[kind]
    program = (layer + MORE_BYTES[kind] * _uncommon(config) + head * config.kv_heads) * (config.layers + ENDS * chunks)
    if xnnpack:  # its row scales of 8-bit codes are fp32, of which two bytes are counted as the matrix's
        program += 2 * sum(rows for rows, _ in config.matrix_shapes().values())
    papers = PAPERS_BYTES + len(model.info.license_text.encode()) + LAYER_IN_MANIFEST * config.layers
    return ends + vectors + rotary + tokenizer + program + papers + _golden_bytes(model, plan)


def _has_two_tables(model: Model, plan: Plan, chunks: int) -> bool:
    """Whether a tied head is a copy: several packages share it only as iOS 18 allows (formats/coreml_chunks.py)."""
    shared = plan.get("tied_head", "shared") == "shared" and (chunks == 1 or plan["target"] == "iOS18")
    return model.config.tied_embeddings and not shared


def _uncommon(config: DecoderConfig) -> int:
    """How many things its layers have that most models' lack; norms of queries and keys by LayerNorm count twice."""
    norms = bool(config.qk_norm) + (bool(config.qk_norm) and config.norm == "layer")
    return norms + config.post_norm + bool(config.attention_softcap)


def _golden_bytes(model: Model, plan: Plan) -> int:
    """Of golden/: two sets of arrays, and their description, in which an id takes a line (runtime/FORMAT.md)."""
    prompts, steps = golden_prompts(model.config, model.tokenizer, plan.context_length), steps_for(model.config)
    ids = sum(len(prompt.ids) + steps for prompt in prompts)
    arrays = 2 * 4 * (ids * (2 * TOP + 2) + len(prompts) * steps * 3)
    return arrays + 20 * ids + sum(2 * len((prompt.text or "").encode()) for prompt in prompts) + 4_000
