"""A decoder -> `model.mlpackage`, built with coremltools' MIL builder: nothing is traced, and no pass runs.

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

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.formats import mlpackage
from satchel.export.ops.base import Weights
from satchel.export.ops.mil import Call, MilOps
from satchel.export.ops.mil_builder import TARGETS, Function, Program, fresh_names, mb, types
from satchel.export.ops.mil_engine import EngineOps
from satchel.export.ops.mil_matrix import MatrixStore
from satchel.export.ops.mil_plain import PlainOps
from satchel.export.ops.mil_store import BlobStore
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec

PACKAGE = "model.mlpackage"
LAYOUTS: dict[str, type[MilOps]] = {"channels_first": EngineOps, "plain": PlainOps}
STATES = ("keyCache", "valueCache")
LARGEST_WEIGHT_FILE = 2**31
"""coremltools PR 2593: what the Neural Engine maps of one file."""
_FP32_PROBE = "layers.0.self_attn.q_proj"


@dataclass(frozen=True)
class Settings:
    """A plan, read and checked."""

    target: str
    layout: str
    dtype: type
    functions: dict[str, tuple[str, Call]]
    compute: str

    @property
    def call(self) -> Call:
        """Of decode."""
        return self.functions["decode"][1]

    @property
    def blockwise(self) -> bool:
        """Whether iOS18's constexpr ops, states and several functions are there."""
        return self.target == "iOS18"


def write(
    folder: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress = silent
) -> ModelEntry:
    """Writes `model.mlpackage` into `folder`, and says how it is called.

    Args:
        folder: exists, and has no such package.
        weights: read one matrix at a time.
        config: shape of the decoder.
        plan: for format "coreml"; roles target, layout, cache, cache_write, lm_head, tied_head, attention, compute.
        info: goes into the model's metadata.
        progress: is called after each layer.

    Raises:
        PlanError: the plan asks for what the target lacks.
    """
    settings = _settings(weights, plan)
    package = folder / PACKAGE
    (package / mlpackage.WEIGHTS).parent.mkdir(parents=True)
    store = BlobStore(package / mlpackage.WEIGHTS)
    matrices = MatrixStore(store, blockwise=settings.blockwise, dtype=settings.dtype)
    with fresh_names():
        program = _program(weights, config, settings, matrices, progress)
        store.close()
        _check_size(package / mlpackage.WEIGHTS, settings)
        model = mlpackage.to_proto(program, store, int(TARGETS[settings.target]))
    states = set(STATES) if settings.call.cache == "state" else set()
    mlpackage.check(model, dict.fromkeys(_function_names(settings), matrices.compressed()), states)
    _describe(model, config, settings, plan, info)
    mlpackage.save(model, package)
    return _entry(config, settings, plan)


# --- the plan ---


def _settings(weights: Weights, plan: Plan) -> Settings:
    target, layout = _choose(plan, "target", tuple(TARGETS)), _choose(plan, "layout", tuple(LAYOUTS))
    probe = weights.matrix(_FP32_PROBE)
    dtype = np.float32 if isinstance(probe, PlainTensor) and probe.bits == 32 else np.float16
    decode = Call(
        length=1,
        context=plan.context_length,
        cache=_cache(plan, target, dtype),
        cache_write=_choose(plan, "cache_write", ("slice_update", "mask"), "slice_update"),
        head_parts=_head_parts(plan),
        shared_head=_choose(plan, "tied_head", ("shared", "duplicated"), "shared") == "shared",
        fused=_fused(plan, target, layout),
    )
    functions = {"decode": ("main", decode)}
    if target == "iOS18" and plan.prefill_length > 1:
        _check_prefill(plan)
        functions = {"prefill": ("prefill", replace(decode, length=plan.prefill_length)), **functions}
    return Settings(target, layout, dtype, functions, plan["compute"])


def _choose(plan: Plan, role: str, known: tuple[str, ...], missing: str | None = None) -> str:
    if missing is not None and all(choice.role != role for choice in plan.choices):
        return missing
    if plan[role] not in known:
        raise PlanError(f"Core ML has no {role} of this name", got=plan[role], wanted=known)
    return plan[role]


def _cache(plan: Plan, target: str, dtype: type) -> str:
    cache = _choose(plan, "cache", ("state", "io"))
    if cache == "state" and target != "iOS18":
        hint = "take the target iOS18, or cache = io"
        raise PlanError("states came with iOS18", got=f"cache = state on {target}", wanted="cache = io", hint=hint)
    return cache if dtype is np.float16 else "io"


def _head_parts(plan: Plan) -> int:
    value = plan["lm_head"]
    if value == "whole":
        return 1
    count = value.removeprefix("split")
    if not count.isdecimal() or int(count) < 1 or not value.startswith("split"):
        raise PlanError("Core ML has no lm_head of this name", got=value, wanted="whole, or split and a number")
    return int(count)


def _fused(plan: Plan, target: str, layout: str) -> bool:
    fused = _choose(plan, "attention", ("per_head", "fused_sdpa")) == "fused_sdpa"
    if fused and (target != "iOS18" or layout != "plain"):
        raise PlanError(
            "scaled_dot_product_attention is for iOS18's GPU and CPU; on the engine it gave inf and NaN (rule 9)",
            got=f"attention = fused_sdpa, layout = {layout}, target = {target}",
            wanted="attention = per_head",
        )
    return fused


def _check_prefill(plan: Plan) -> None:
    if plan.prefill_length > plan.context_length:
        raise PlanError(
            "a prefill call longer than the context", got=plan.prefill_length, wanted=f"<= {plan.context_length}"
        )


def _check_size(weights: Path, settings: Settings) -> None:
    size = weights.stat().st_size
    if settings.layout == "channels_first" and size > LARGEST_WEIGHT_FILE:
        raise PlanError(
            "the engine reads a weight file only up to 2 GiB",
            got=f"{size:,} bytes",
            wanted=f"<= {LARGEST_WEIGHT_FILE:,}",
            hint="choose fewer bits, a smaller model, or the layout plain for the GPU",
        )


# --- the program ---


def _program(
    weights: Weights, config: DecoderConfig, settings: Settings, matrices: MatrixStore, progress: Progress
) -> Program:
    program = Program()
    program.export_as_multifunction = len(settings.functions) > 1
    steps, total = 0, len(settings.functions) * (config.layers + 1)
    for name, call in settings.functions.values():
        with Function(_inputs(config, call, matrices.dtype), opset_version=TARGETS[settings.target]) as function:
            ops = LAYOUTS[settings.layout](config, weights, matrices, call, dict(function.inputs))
            x = embed(ops)
            for layer in range(config.layers):
                x = block(ops, x, layer)
                steps += 1
                progress("Writing Core ML", steps, total)
            function.set_outputs(ops.outputs(head(ops, config, x)))
        program.add_function(name, function)
        steps += 1
        progress("Writing Core ML", steps, total)
    return program


def _inputs(config: DecoderConfig, call: Call, dtype: type) -> dict[str, Any]:
    floats = types.fp16 if dtype is np.float16 else types.fp32
    cache = (config.layers, config.kv_heads, call.context, config.head_dim)
    place = mb.state_tensor_placeholder if call.cache == "state" else mb.placeholder
    return {
        "inputIds": mb.placeholder((1, call.length), dtype=types.int32),
        "position": mb.placeholder((1,), dtype=types.int32),
        **{name: place(cache, dtype=floats) for name in STATES},
    }


def _function_names(settings: Settings) -> list[str]:
    return [name for name, _ in settings.functions.values()]


# --- what is said about it ---

_FEATURES = {
    "inputIds": "Token ids; a short chunk is padded at its end with any valid id",
    "position": "Tokens already in the cache",
    "keyCache": "Keys of all layers after rotary; zeros at the start",
    "valueCache": "Values of all layers; zeros at the start",
    "logits": "Row i follows token i",
    "presentKeys": "Keys of this call's tokens, to be copied into keyCache at position",
    "presentValues": "Values of this call's tokens, to be copied into valueCache at position",
}


def _describe(model: Any, config: DecoderConfig, settings: Settings, plan: Plan, info: ModelInfo) -> None:
    """Metadata, as Xcode shows it and MLModelDescription.metadata gives it."""
    metadata = model.description.metadata
    metadata.shortDescription = f"{info.model_id}, a {info.family} language model, for {plan.device}, by Satchel"
    metadata.versionString = "1"
    metadata.author = info.author
    metadata.license = info.license
    for key, value in _user_metadata(settings, plan, info).items():
        metadata.userDefined[key] = value
    for described in (model.description, *model.description.functions):
        for feature in (*described.input, *described.output, *described.state):
            feature.shortDescription = _FEATURES[feature.name]


def _user_metadata(settings: Settings, plan: Plan, info: ModelInfo) -> dict[str, str]:
    """The first key is where swift-transformers looks for the model's name."""
    return {
        "co.huggingface.exporters.name": info.model_id,
        "satchel.modelId": info.model_id,
        "satchel.family": info.family,
        "satchel.source": info.source,
        "satchel.device": plan.device,
        "satchel.contextLength": str(plan.context_length),
        "satchel.prefillLength": str(_prefill_length(settings)),
        "satchel.cache": settings.call.cache,
        "satchel.cacheLayout": "layers, kv_heads, context, head_dim",
        "satchel.layout": settings.layout,
        "satchel.compute": settings.compute,
    }


def _prefill_length(settings: Settings) -> int:
    return max(call.length for _, call in settings.functions.values())


def _entry(config: DecoderConfig, settings: Settings, plan: Plan) -> ModelEntry:
    floats = np.dtype(settings.dtype).name
    shape = (config.layers, config.kv_heads, plan.context_length, config.head_dim)
    caches = tuple(TensorSpec(name, shape, floats) for name in STATES)
    new = (*shape[:2], 1, shape[3])
    io = settings.call.cache == "io"
    outputs = [TensorSpec("logits", (1, 1, config.vocab_size), floats)]
    if io:
        outputs += [TensorSpec(name, new, floats) for name in ("presentKeys", "presentValues")]
    return ModelEntry(
        format="coreml",
        path=PACKAGE,
        context_length=plan.context_length,
        prefill_length=_prefill_length(settings),
        inputs=(
            TensorSpec("inputIds", (1, 1), "int32"),
            TensorSpec("position", (1,), "int32"),
            *(caches if io else ()),
        ),
        outputs=tuple(outputs),
        states=() if io else caches,
        options={
            "functions": {role: name for role, (name, _) in settings.functions.items()},
            "cache": settings.call.cache,
            "mask": "position",
            "layout": settings.layout,
            "target": settings.target,
            "compute": settings.compute,
            "precision": floats,
        },
    )
