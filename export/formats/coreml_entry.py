"""What is said about a Core ML package: its signature for the manifest, and its metadata."""

from __future__ import annotations

from typing import Any

import numpy as np

from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.coreml_chunks import Chunk
from satchel.export.formats.coreml_settings import Settings
from satchel.runtime.chunks import CACHES, HIDDEN_IN, HIDDEN_OUT, ROWS_IN
from satchel.runtime.manifest import ChunkEntry, ModelEntry, ModelInfo, TensorSpec

EMBED_FUNCTIONS = {"decode": "embed", "prefill": "embed_prefill"}
"""Names of the functions that look up ids, where the embedding is in the last package."""
CHAIN = (TensorSpec("inputIds", (1, 1), "int32"), TensorSpec("position", (1,), "int32"))
"""What the host gives for a token, besides a cache of its own."""
PRESENT = ("presentKeys", "presentValues")
_FEATURES = {
    "inputIds": "Token ids; a short chunk is padded at its end with any valid id",
    "position": "Tokens already in the cache",
    "keyCache": "Keys of all layers after rotary; zeros at the start",
    "valueCache": "Values of all layers; zeros at the start",
    "logits": "Row i follows token i",
    "presentKeys": "Keys of this call's tokens, to be copied into keyCache at position",
    "presentValues": "Values of this call's tokens, to be copied into valueCache at position",
    HIDDEN_IN: "What the package before gave",
    ROWS_IN: "Rows of the embedding",
    HIDDEN_OUT: "The residual stream, for the next package",
}


def describe(model: Any, config: DecoderConfig, settings: Settings, chunk: Chunk, plan: Plan, info: ModelInfo) -> None:
    """Metadata, as Xcode shows it and MLModelDescription.metadata gives it."""
    metadata = model.description.metadata
    part = "" if chunk.count == 1 else f" (package {chunk.number} of {chunk.count})"
    metadata.shortDescription = f"{info.model_id}, a {info.family} language model, for {plan.device}, by Satchel{part}"
    metadata.versionString = "1"
    metadata.author = info.author
    metadata.license = info.license
    for key, value in _user_metadata(settings, chunk, plan, info).items():
        metadata.userDefined[key] = value
    for described in (model.description, *model.description.functions):
        for feature in (*described.input, *described.output, *described.state):
            feature.shortDescription = _FEATURES[feature.name]


def _user_metadata(settings: Settings, chunk: Chunk, plan: Plan, info: ModelInfo) -> dict[str, str]:
    """The first key is where swift-transformers looks for the model's name."""
    part = {
        "satchel.chunk": f"{chunk.number} of {chunk.count}",
        "satchel.layers": f"{chunk.layers.start} to {chunk.layers.stop - 1}",
    }
    return {
        "co.huggingface.exporters.name": info.model_id,
        "satchel.modelId": info.model_id,
        "satchel.family": info.family,
        "satchel.source": info.source,
        "satchel.device": plan.device,
        "satchel.contextLength": str(plan.context_length),
        "satchel.prefillLength": str(settings.prefill_length),
        "satchel.cache": settings.call.cache,
        "satchel.cacheLayout": "layers, kv_heads, context, head_dim",
        "satchel.layout": settings.layout,
        "satchel.compute": settings.compute,
        **(part if chunk.count > 1 else {}),
    }


def model_entry(config: DecoderConfig, settings: Settings, chunks: list[Chunk], plan: Plan) -> ModelEntry:
    """How the app calls it all."""
    calls = [call for chunk in chunks for call in _calls(config, settings, chunk)]
    calls.sort(key=lambda call: call.layers > 0)  # what looks up ids comes first
    several, (first, last) = len(calls) > 1, (calls[0], calls[-1])
    functions = {"functions": {role: name for role, (name, _) in settings.functions.items()}}
    return ModelEntry(
        format="coreml",
        path=first.path,
        context_length=plan.context_length,
        prefill_length=settings.prefill_length,
        inputs=CHAIN if several else first.inputs,
        outputs=last.outputs[:1] if several else last.outputs,
        states=() if several else first.states,
        options={
            **({} if several else functions),
            "cache": settings.call.cache,
            "mask": "position",
            "layout": settings.layout,
            "target": settings.target,
            "compute": settings.compute,
            "precision": np.dtype(settings.dtype).name,
        },
        chunks=tuple(calls) if several else None,
    )


def hidden_shape(config: DecoderConfig, settings: Settings, length: int) -> tuple[int, ...]:
    """Of the residual stream of so many tokens, in the layout of the program's inside."""
    shape = [1, length, config.hidden_size] if settings.layout == "plain" else [1, config.hidden_size, 1, length]
    return tuple(shape)


def _calls(config: DecoderConfig, settings: Settings, chunk: Chunk) -> list[ChunkEntry]:
    """The calls of one package: of its layers, and perhaps of its embedding."""
    ids, position = CHAIN
    floats = np.dtype(settings.dtype).name
    given, handed = (TensorSpec(name, hidden_shape(config, settings, 1), floats) for name in (HIDDEN_IN, HIDDEN_OUT))
    given = TensorSpec(ROWS_IN, (1, 1, config.hidden_size), floats) if chunk.rows else given
    caches, new = _cache_specs(config, settings, len(chunk.layers))
    io = settings.call.cache == "io"
    result = TensorSpec("logits", (1, 1, config.vocab_size), floats) if chunk.head else handed
    layers = ChunkEntry(
        path=chunk.package,
        functions={role: name for role, (name, _) in settings.functions.items()},
        first_layer=chunk.layers.start,
        layers=len(chunk.layers),
        inputs=(ids if chunk.embeds else given, position, *(caches if io else ())),
        outputs=(result, *(new if io else ())),
        states=() if io else caches,
    )
    if not chunk.table:
        return [layers]
    functions = {role: EMBED_FUNCTIONS[role] for role in settings.functions}
    return [ChunkEntry(chunk.package, functions, 0, 0, (ids,), (handed,)), layers]


def _cache_specs(
    config: DecoderConfig, settings: Settings, layers: int
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The caches of so many layers, and their rows of one token."""
    floats = np.dtype(settings.dtype).name
    whole, row = ((layers, config.kv_heads, n, config.head_dim) for n in (settings.call.context, 1))
    return tuple(TensorSpec(n, whole, floats) for n in CACHES), tuple(TensorSpec(n, row, floats) for n in PRESENT)
