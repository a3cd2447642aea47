"""A decoder -> `model.mlpackage`, built with coremltools' MIL builder: nothing is traced, and no pass runs.

With plan["chunks"] the layers are spread over several packages, see coreml_chunks.py and "chunks" in runtime/FORMAT.md;
what follows holds for the chain that they make, and each has the cache of its own layers.

How to call it (`S` tokens a call, `C` = context_length, `L` layers, `KV` key/value heads, `D` head_dim, `V` vocabulary;
`float` is fp16, or fp32 when the weights are fp32 matrices):

    inputs   inputIds   int32 [1, S]          token ids; a short chunk is padded at its end with any valid id
             position   int32 [1]             tokens already in the cache; position + S <= C must hold
             keyCache   float [L, KV, C, D]   only where options["cache"] == "io"; keys are stored after rotary
             valueCache float [L, KV, C, D]   only where options["cache"] == "io"
    states   keyCache, valueCache  fp16 [L, KV, C, D]   only where options["cache"] == "state"; zeros at the start
    outputs  logits     float [1, S, V]       row i follows token i; rows of padding mean nothing
             presentKeys, presentValues  float [L, KV, S, D]   only where options["cache"] == "io"

There is no mask to supply: the program derives it from `position` (slot j of the cache is seen when j < position,
token i of this call by tokens >= i), as it does the rotary angles. What lies in the cache at or after `position` is
never seen as long as it is finite, so padding needs no cleaning: the next call starts at position + (real tokens) and
overwrites it. With states the program itself writes rows position .. position + S - 1. With "io" the caller copies the
rows of presentKeys and presentValues that belong to real tokens into the caches at `position`. To empty the cache,
start again at position 0.

ModelEntry.options:

    functions   {"prefill": NAME, "decode": NAME}: the program's function for S = prefill_length and for S = 1. The
                default function is "main", decode. Without "prefill" there is one, and prefill_length is 1.
    cache       "state" or "io", as above.
    mask        "position": derived from it in the program.
    layout      "channels_first" or "plain": how the inside is laid out; the signature is the same.
    target      "iOS16", "iOS17" or "iOS18".
    compute     what the app should ask for in MLModelConfiguration.computeUnits, such as "cpuAndNeuralEngine".
    precision   "float16" or "float32": of the program's arithmetic.

Names are swift-transformers' where it has one (inputIds, keyCache, valueCache, logits, presentKeys, presentValues). Its
own generation loop wants one function of flexible length and takes the position from a mask's shape; shapes that change
leave the Neural Engine (neural-engine rule 6), so here every shape is static and the position is an input.

Before iOS18 there is no program of several functions. A second package would double the download, and a flexible
length would leave the engine, so there the prompt goes through the one function of S = 1. States came with iOS18 too,
and hold fp16 only: fp32 programs pass their cache through inputs and outputs on every target.

How weights are named in the program, so that they can be read back (canonical names with "." written as "__"):

    layers__3__mlp__up_proj           the constexpr op's output, or the const of a matrix that is kept as floats
    layers__3__mlp__up_proj__scale    const, the palette's row scales, multiplied after the conv or linear (shape
                                      [1, O, 1, 1] or [O]; [V, 1] and gathered for the embedding); palettes only
    layers__3__mlp__up_proj__bias     const; norm gains are consts by their own names: layers__3__input_layernorm
    lm_head__part2, ..part2__scale    consecutive rows of a head that is split; parts in order make up the matrix
    lm_head__bias__part2              the same of its bias
    embed_tokens__part2               the same of a tied head: rows of embed_tokens once more, to be reported once
    embed_tokens__head                a tied head in one piece

Both functions of a program name the same blobs. With plan["tied_head"] "shared" the parts' blob headers point into the
embedding's data; "duplicated" gives them copies, in case a reader of Core ML's refuses that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.formats import mlpackage
from satchel.export.formats.coreml_chunks import PACKAGE, Chunk, Ids, spread
from satchel.export.formats.coreml_entry import EMBED_FUNCTIONS, describe, hidden_shape, model_entry
from satchel.export.formats.coreml_settings import LAYOUTS, Settings, read_settings
from satchel.export.ops.base import Weights
from satchel.export.ops.mil import Call, MilOps
from satchel.export.ops.mil_builder import TARGETS, Function, Program, Var, fresh_names, mb, types
from satchel.export.ops.mil_matrix import MatrixStore
from satchel.export.ops.mil_store import BlobStore
from satchel.export.progress import Progress, silent
from satchel.runtime.chunks import CACHES, HIDDEN_IN, HIDDEN_OUT, ROWS_IN
from satchel.runtime.manifest import ModelEntry, ModelInfo

__all__ = ["PACKAGE", "write"]

LARGEST_WEIGHT_FILE = 2**31
"""coremltools PR 2593: what the Neural Engine maps of one file."""


def write(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
    *,
    ids: Ids = "within",
) -> ModelEntry:
    """Writes `model.mlpackage`, or one package for each chunk, into `folder`, and says how it is called.

    Args:
        folder: exists, and has no such package.
        weights: read one matrix at a time.
        config: shape of the decoder.
        plan: for format "coreml"; roles target, layout, cache, cache_write, lm_head, tied_head, attention, compute,
            chunks.
        info: goes into the model's metadata.
        progress: is called after each layer.
        ids: "within" the layers' functions; "apart" gives them functions of their own, also in a single package, so
            that a host can exchange rows of what those give before the first layer is given them, from iOS18 on;
            "none" takes `inputsEmbeds` float [1, S, channels] in their place.

    Raises:
        PlanError: the plan asks for what the target lacks.
    """
    settings = read_settings(weights, plan)
    chunks = spread(weights, config, settings, ids=ids)
    told = _Told(progress, len(settings.functions) * (config.layers + len(chunks)))
    for chunk in chunks:
        package = folder / chunk.package
        model = _package(package, weights, config, settings, chunk, told)
        describe(model, config, settings, chunk, plan, info)
        mlpackage.save(model, package)
    return model_entry(config, settings, chunks, plan)


@dataclass
class _Told:
    """Progress over all packages, a step for each layer and each end of a function."""

    progress: Progress
    total: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        self.progress("Writing Core ML", self.steps, self.total)


def _package(
    package: Path, weights: Weights, config: DecoderConfig, settings: Settings, chunk: Chunk, told: _Told
) -> Any:
    """Writes the weights of a package; returns the model, which is to be written beside them."""
    (package / mlpackage.WEIGHTS).parent.mkdir(parents=True)
    store = BlobStore(package / mlpackage.WEIGHTS)
    matrices = MatrixStore(store, blockwise=settings.blockwise, dtype=settings.dtype)
    with fresh_names():
        program, expected = _program(weights, config, settings, chunk, matrices, told)
        store.close()
        _check_size(package / mlpackage.WEIGHTS, settings)
        model = mlpackage.to_proto(program, store, int(TARGETS[settings.target]))
    mlpackage.check(model, expected)
    return model


def _check_size(weights: Path, settings: Settings) -> None:
    size = weights.stat().st_size
    if settings.layout == "channels_first" and size > LARGEST_WEIGHT_FILE:
        raise PlanError(
            "the engine reads a weight file only up to 2 GiB",
            got=f"{size:,} bytes",
            wanted=f"<= {LARGEST_WEIGHT_FILE:,}",
            hint="choose more chunks, fewer bits, a smaller model, or the layout plain for the GPU",
        )


def _program(
    weights: Weights, config: DecoderConfig, settings: Settings, chunk: Chunk, matrices: MatrixStore, told: _Told
) -> tuple[Program, dict[str, mlpackage.Expected]]:
    """The functions of a package, and what each must have."""
    program, expected = Program(), {}
    functions = list(_functions(settings, chunk))
    program.export_as_multifunction = len(functions) > 1
    for name, call, embeds_only in functions:
        inputs = _inputs(config, settings, chunk, call, embeds_only)
        with Function(inputs, opset_version=TARGETS[settings.target]) as function:
            ops = LAYOUTS[settings.layout](config, weights, matrices, call, dict(function.inputs))
            function.set_outputs([_handed_on(embed(ops))] if embeds_only else _layers(ops, config, chunk, told))
        program.add_function(name, function)
        states = set() if embeds_only or call.cache != "state" else set(CACHES)
        expected[name] = mlpackage.Expected(matrices.taken(), states)
    return program, expected


def _functions(settings: Settings, chunk: Chunk) -> Iterator[tuple[str, Call, bool]]:
    """(name, what is particular to it, whether it only looks up ids) of each function of a package.

    Those that look up ids come first, so that a tied head's blobs can point into the embedding's.
    """
    if chunk.table:
        for role, (_, call) in settings.functions.items():
            yield EMBED_FUNCTIONS[role], call, True
    for name, call in settings.functions.values():
        shared = call.shared_head and chunk.shares_table
        yield name, replace(call, first_layer=chunk.layers.start, shared_head=shared), False


def _layers(ops: MilOps, config: DecoderConfig, chunk: Chunk, told: _Told) -> list[Var]:
    """The layers of a chunk and what comes before and after them; the function's outputs."""
    x = _residual(ops, chunk)
    for layer in chunk.layers:
        x = block(ops, x, layer)
        told.step()
    x = head(ops, config, x) if chunk.head else _handed_on(x)
    outputs = ops.outputs(x)
    told.step()
    return outputs


def _residual(ops: MilOps, chunk: Chunk) -> Var:
    """What the first layer of a chunk is given."""
    if chunk.embeds:
        return embed(ops)
    return ops.entered(ops.inputs[ROWS_IN]) if chunk.rows else ops.inputs[HIDDEN_IN]


def _handed_on(x: Var) -> Var:
    """The residual stream as an output."""
    x.set_name(HIDDEN_OUT)
    return x


def _inputs(config: DecoderConfig, settings: Settings, chunk: Chunk, call: Call, embeds_only: bool) -> dict[str, Any]:
    floats = types.fp16 if settings.dtype is np.float16 else types.fp32
    ids = {"inputIds": mb.placeholder((1, call.length), dtype=types.int32)}
    if embeds_only:
        return ids
    cache = (len(chunk.layers), config.kv_heads, call.context, config.head_dim)
    place = mb.state_tensor_placeholder if call.cache == "state" else mb.placeholder
    hidden = hidden_shape(config, settings, call.length)
    given, shape = (ROWS_IN, (1, call.length, config.hidden_size)) if chunk.rows else (HIDDEN_IN, hidden)
    return {
        **(ids if chunk.embeds else {given: mb.placeholder(shape, dtype=floats)}),
        "position": mb.placeholder((1,), dtype=types.int32),
        **{name: place(cache, dtype=floats) for name in CACHES},
    }
