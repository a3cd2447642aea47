"""A model of several packages: is the chain that a manifest lists one that can be called? See FORMAT.md, `chunks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from satchel.runtime.errors import BundleError

if TYPE_CHECKING:
    from satchel.runtime.manifest import ChunkEntry, ModelEntry, TensorSpec

HIDDEN_IN, HIDDEN_OUT = "hiddenStates", "outputHiddenStates"
ROWS_IN = "inputsEmbeds"
"""Rows of the embedding, [1, S, channels] in every layout, of a program without one."""
"""The residual stream, as a chunk takes it from the one before, and as it hands it on."""
CACHES = ("keyCache", "valueCache")


def check_chunks(entry: ModelEntry, files: Iterable[str], layers: int) -> None:
    """Holds a chain to what every reader relies on.

    Args:
        entry: with chunks.
        files: paths of all files of the bundle.
        layers: of the model, as far as the manifest names their matrices; 0 where it names none.

    Raises:
        BundleError: a chunk is missing, comes twice or in another's place, or does not fit its neighbours.
    """
    chunks = entry.chunks or ()
    if entry.format != "coreml" or len(chunks) < 2 or entry.path != chunks[0].path:
        raise _bad("only Core ML's model has chunks, two or more, and its path is the first one's", entry.path)
    _check_places(chunks)
    _check_packages(chunks, files)
    _check_layers(chunks, layers)
    for before, after in pairwise(chunks):
        given, taken = _named(before.outputs, HIDDEN_OUT), _named(after.inputs, HIDDEN_IN)
        if given is None or taken is None or (given.shape, given.dtype) != (taken.shape, taken.dtype):
            raise _bad("a chunk does not take what the one before it gives", after.path)
    if [c.path for c in chunks if _named(c.inputs, "inputIds")] != [chunks[0].path]:
        raise _bad("the first chunk, and no other, takes the ids", [c.path for c in chunks])
    if [c.path for c in chunks if _named(c.outputs, "logits")] != [chunks[-1].path]:
        raise _bad("the last chunk, and no other, gives the logits", [c.path for c in chunks])


def _check_places(chunks: Sequence[ChunkEntry]) -> None:
    """Each function of each package is called once, and all chunks have functions for the same lengths."""
    called = [(chunk.path, name) for chunk in chunks for name in chunk.functions.values()]
    if len(set(called)) != len(called):
        raise _bad("a chunk is listed twice", sorted(called))
    roles = [sorted(chunk.functions) for chunk in chunks]
    if any(r not in (["decode"], ["decode", "prefill"]) or r != roles[0] for r in roles):
        raise _bad("chunks differ in the functions that they have", roles, wanted="decode, and prefill in all or none")


def _check_packages(chunks: Sequence[ChunkEntry], files: Iterable[str]) -> None:
    named, there = {c.path for c in chunks}, {f.split("/")[0] for f in files if f.split("/")[0].endswith(".mlpackage")}
    if named != there:
        raise _bad("the chunks are not the packages among the files", sorted(named), wanted=sorted(there))


def _check_layers(chunks: Sequence[ChunkEntry], layers: int) -> None:
    """All layers in order, each once, and each chunk with the cache of its own."""
    follow = 0
    for chunk in chunks:
        if chunk.layers < 0 or chunk.first_layer != follow:
            raise _bad("layers are missing, come twice or are out of order", (chunk.path, chunk.first_layer), follow)
        follow += chunk.layers
        caches = {spec.name: spec.shape[:1] for spec in (*chunk.inputs, *chunk.states) if spec.name in CACHES}
        placed = _named(chunk.inputs, "position") is not None
        if caches != (dict.fromkeys(CACHES, (chunk.layers,)) if chunk.layers else {}) or placed != bool(chunk.layers):
            raise _bad("a chunk's cache and position are not those of its layers", chunk.path, f"{chunk.layers} layers")
    if layers and follow != layers:
        raise _bad("the chunks hold another number of layers than the model", follow, wanted=layers)


def _named(specs: Iterable[TensorSpec], name: str) -> TensorSpec | None:
    return next((spec for spec in specs if spec.name == name), None)


def _bad(what: str, got: object, wanted: object = None) -> BundleError:
    return BundleError(what, got=got, wanted=wanted, hint="export the bundle again")
