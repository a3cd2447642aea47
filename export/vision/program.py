"""transformers' own program of a model that sees: loaded whole, or read from its files a piece at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from satchel.export.families.registry import family_of
from satchel.export.huggingface import empty_whole_model, filled_model, load_whole_model
from satchel.export.ops.base import Weights
from satchel.export.streaming import CheckpointPieces, MatrixPieces, Pieces, Streamed, stream
from satchel.export.vision.checkpoint import ALL, Parts

PLACE = tuple[str, str]
"""("text" or "vision", name), as MultimodalFamily.name has it."""
TABLE, PATCHES = "vision.position_embedding", "vision.patch_embedding"


class LiveModel:
    """The module, and what its parameters are.

    Args:
        path: a Hugging Face folder.
        parts: of the same.
        streamed: read the matrices whenever they are used, of the tower too; its convolution is filled once.

    Attributes:
        model: in evaluation mode.
        streamed: None where it is loaded.
        names: what a parameter is -> its name in the module.

    Raises:
        CheckpointError: it cannot be read by transformers.
    """

    def __init__(self, path: Path, parts: Parts, streamed: bool) -> None:
        self._parts = parts
        stand = parts.family.stand
        named = stand.name if stand else parts.family.name
        build = (lambda: stand.build(parts.family.text(parts.given), parts.vision_config)) if stand else None
        model = load_whole_model(path) if not (streamed or stand) else empty_whole_model(path, build)
        found = {name: named(parts.vision_config, name) for name, _ in model.named_parameters()}
        self.names: dict[PLACE, str] = {(p[0], str(p[1])): name for name, p in found.items() if p is not None}
        self.streamed: Streamed | None = None
        if streamed:
            self._original = SeeingPieces(parts, self.names, model)
            self.streamed = Streamed(self._original)
            model = stream(_without_unused(model, self.names), self.streamed, parts.config.tied_embeddings)
        elif stand:
            pieces = SeeingPieces(parts, self.names, model)
            shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
            model = filled_model(model, {n: pieces.read(n, 0, s[0]).reshape(s) for n, s in shapes.items()})
        self.model = model

    def load_weights(self, weights: Weights) -> None:
        """Exchanges the matrices of a streamed model."""
        assert self.streamed is not None
        layout = self._layout()
        self.streamed.pieces = _Exchanged(self._original, MatrixPieces(weights, layout), layout)
        patches = self.model.get_parameter(self.names["vision", PATCHES])  # a convolution, which is not streamed
        with torch.no_grad():
            patches.copy_(torch.from_numpy(weights.matrix(PATCHES).dequantize()).reshape(patches.shape))

    def _layout(self) -> dict[str, list[tuple[str, int]]]:
        """Parameter -> the canonical matrices that make it up, each with its rows."""
        places = family_of(self._parts.text.config).parameters(self._parts.config)
        found = {}
        for name, (rows, _) in self._parts.config.matrix_shapes().items():
            place = places[name]
            assert isinstance(place, str), name  # text models that are seen with hold nothing fused
            found[self.names["text", place]] = [(name, rows)]
        for name, (rows, _) in self._parts.vision_config.matrix_shapes().items():
            found[self.names["vision", name]] = [(name, rows)]
        return found


def _without_unused(model: Any, names: Mapping[PLACE, str]) -> Any:
    """Zeros for parameters without a part in the result, such as those of SigLIP's own head."""
    unused = {n: p for n, p in model.named_parameters() if n not in names.values()}
    for name, parameter in unused.items():
        module, _, last = name.rpartition(".")
        zeros = torch.nn.Parameter(torch.zeros(parameter.shape), requires_grad=False)
        model.get_submodule(module).register_parameter(last, zeros)
    return model


class SeeingPieces:
    """The original weights by the module's own names."""

    def __init__(self, parts: Parts, names: Mapping[PLACE, str], model: Any) -> None:
        self._vision = parts.vision
        self._text = CheckpointPieces(parts.text, family_of(parts.text.config), parts.config)
        self._places = {name: place for place, name in names.items()}
        self._table: np.ndarray | None = None
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}

    def read(self, parameter: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:  # noqa: D102
        kind, name = self._places[parameter]
        if kind == "text":
            return self._text.read(name, start, stop, out)
        shape = self._shapes[parameter]
        if name == TABLE:  # whose rows are asked for one by one
            self._table = self._vision.stored(name, ALL).reshape(shape) if self._table is None else self._table
            return self._table[start:stop]
        return self._vision.stored(name, slice(start, stop), out).reshape(stop - start, *shape[1:])


class _Exchanged:
    """Compressed matrices, and the original of everything else."""

    def __init__(self, original: Pieces, matrices: Pieces, layout: Mapping[str, Any]) -> None:
        self._original, self._matrices, self._layout = original, matrices, layout

    def read(self, parameter: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        source = self._matrices if parameter in self._layout else self._original
        return source.read(parameter, start, stop, out)
