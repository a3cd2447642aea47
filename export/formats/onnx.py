"""Writes model.onnx: the decoder as an ONNX graph, built directly, with its weights in model.onnx.data.

Inputs are as onnxruntime-genai gives them: input_ids (int64 [batch, sequence]), attention_mask (int64 [batch, total])
and past_key_values.N.key / .value; outputs are logits and present.N.key / .value. Past and present are meant to be
bound to one buffer of context_length tokens, to which GroupQueryAttention then appends in place.

Opset 21 and IR version 10 are what onnxruntime 1.20 reads. What a file needs beyond that is said in
`ModelEntry.options["minimum_onnxruntime"]`, with the reason:

    fp16, fp32, 4-bit MatMulNBits          1.20
    8-bit MatMulNBits                      1.22 (1.20 has the 4-bit kernel only)
    8-bit GatherBlockQuantized             1.23 (pull request 25214; before, 4 bits only)
    Cast from uint4, in a palette          1.23 (1.22 answers that it is not implemented)
    masks that differ by head              1.22 (GroupQueryAttention's attention_bias; tried with 1.31 only)
    windows of attention                   1.24 (pull request 25927; before, a token saw one more than the window has)

Files were loaded with the 1.20.1, 1.22.1 and 1.23.2 wheels to see it, windows with 1.24.4 too. So every file with an
8-bit embedding needs 1.23, and 8 bits are the default there since a 4-bit embedding doubles the KL.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir

from satchel.devices.plan import Plan
from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.genai import write_config
from satchel.export.formats.onnx_layers import add_outputs
from satchel.export.ops.base import Weights
from satchel.export.ops.onnx import ACCURACY_LEVEL, CacheInputs, OnnxOps
from satchel.export.ops.onnx_graph import ExternalData, GraphBuilder
from satchel.export.ops.onnx_values import Tensor
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import FormatError, OutputError
from satchel.runtime.golden_layers import LAYERS_MODEL
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec

MODEL = "model.onnx"
DATA = "model.onnx.data"


def write(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
    *,
    layers: bool = False,
) -> ModelEntry:
    """Writes model.onnx, model.onnx.data and genai_config.json into `folder`; with `layers` layers.onnx too.

    Raises:
        OutputError: when the files cannot be written.
        FormatError: for weights that ONNX's operators cannot hold.
        PlanError: when the plan does not say what lm_head should be.
    """
    try:
        with (folder / DATA).open("wb") as stream:
            graph = GraphBuilder(ExternalData(folder / DATA, stream))
            behind: list[Tensor] = []
            outputs = build(graph, weights, config, plan, progress, behind=behind)
        model = graph.model(outputs, metadata(info))
        (folder / MODEL).write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
        if layers:
            add_outputs(model, behind, config.hidden_size)
            (folder / LAYERS_MODEL).write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
        if len({config.layer(i).kv_heads for i in range(config.layers)}) == 1:  # genai knows one number of heads
            write_config(folder, config, plan.context_length, filename=MODEL)
    except OSError as error:
        raise OutputError(
            "ONNX: the model could not be written", got=error, hint="free disk space, or another folder"
        ) from error
    return entry_of(graph, outputs, plan)


def build(
    graph: GraphBuilder,
    weights: Weights,
    config: DecoderConfig,
    plan: Plan,
    progress: Progress,
    *,
    embedded: bool = False,
    behind: list[Tensor] | None = None,
) -> list[ir.Value]:
    """All nodes; returns the outputs. With `embedded` the graph takes rows of the embedding instead of ids; `behind`
    gets what each layer gives."""
    place: list[int | str] = ["batch_size", "sequence_length"]
    if embedded:
        ids = graph.input("inputs_embeds", ir.DataType.FLOAT, [*place, config.hidden_size])
    else:
        ids = graph.input("input_ids", ir.DataType.INT64, place)
    mask = graph.input("attention_mask", ir.DataType.INT64, ["batch_size", "total_sequence_length"])
    cache = _cache(graph, mask, config, plan.context_length)
    last_token = plan["lm_head"] == "last_token"
    level = int(plan.get("accuracy_level", str(ACCURACY_LEVEL)))
    ops = OnnxOps(graph, config, weights, ids, cache, last_token=last_token, accuracy_level=level)
    steps = config.layers + 2
    progress("Writing ONNX", 0, steps)
    x = ids if embedded else embed(ops)
    for layer in range(config.layers):
        progress("Writing ONNX", layer + 1, steps)
        x = block(ops, x, layer)
        if behind is not None:
            behind.append(x)
    logits = head(ops, config, x)
    assert isinstance(logits, ir.Value)
    progress("Writing ONNX", steps, steps)
    describe(logits, ["batch_size", 1 if last_token else "sequence_length", config.vocab_size])
    for layer, present in enumerate(ops.present):
        for value, kind in zip(present, ("key", "value"), strict=True):
            value.name = f"present.{layer}.{kind}"
            kv_heads = config.layer(layer).kv_heads
            describe(value, ["batch_size", kv_heads, "total_sequence_length", config.head_dim])
    return [logits, *(value for present in ops.present for value in present)]


def describe(value: ir.Value, shape: list[int | str]) -> None:
    """Says that an output is fp32, and its shape."""
    value.shape = ir.Shape(shape)
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _cache(graph: GraphBuilder, mask: ir.Value, config: DecoderConfig, context_length: int) -> CacheInputs:
    """The cache as inputs, and its length out of the mask.

    Raises FormatError for a width of heads that GroupQueryAttention does not take.
    """
    if config.head_dim % 8:
        raise FormatError(
            "onnxruntime has attention for heads of a multiple of 8 channels",
            got=config.head_dim,
            wanted="a multiple of 8",
            hint="choose another format",
        )
    past = []
    for i in range(config.layers):
        shape: list[int | str] = ["batch_size", config.layer(i).kv_heads, "past_sequence_length", config.head_dim]
        key, value = (graph.input(f"past_key_values.{i}.{n}", ir.DataType.FLOAT, shape) for n in ("key", "value"))
        past.append((key, value))
    axis = graph.initializer("mask.axis", np.array([1], np.int64))
    one = graph.initializer("mask.one", np.array(1, np.int64))
    tokens = graph.node("ReduceSum", "mask.tokens", [mask, axis], {"keepdims": 0})
    last = graph.cast("mask.last_position", graph.node("Sub", "mask.last", [tokens, one]), ir.DataType.INT32)
    length = graph.node("Gather", "mask.length", [graph.node("Shape", "mask.shape", [mask]), one], {"axis": 0})
    total = graph.cast("mask.total_length", length, ir.DataType.INT32)
    return CacheInputs(past, last, total, context_length)


def metadata(info: ModelInfo) -> dict[str, str]:
    """What the file says of its model."""
    facts = {"model_id": info.model_id, "author": info.author, "license": info.license, "source": info.source}
    return {key: value for key, value in facts.items() if value}


def entry_of(graph: GraphBuilder, outputs: list[ir.Value], plan: Plan) -> ModelEntry:
    """How the decoder is called."""
    version, reason = graph.minimum_version()
    return ModelEntry(
        format="onnx",
        path=MODEL,
        context_length=plan.context_length,
        prefill_length=0,
        inputs=tuple(spec(value) for value in graph.inputs),
        outputs=tuple(spec(value) for value in outputs),
        options={"minimum_onnxruntime": version, "minimum_onnxruntime_reason": reason, "data": os.fspath(DATA)},
    )


def spec(value: ir.Value) -> TensorSpec:
    """An input or output as the manifest has it."""
    assert value.name and value.shape is not None and value.dtype is not None
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    return TensorSpec(value.name, shape, value.dtype.numpy().name)
