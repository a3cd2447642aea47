"""A checkpoint of a model that sees, as two: its text model, as if it were alone, and its vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from satchel.export.checkpoint import Checkpoint
from satchel.export.checkpoint.base import CheckpointInfo
from satchel.export.families.base import DecoderConfig
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.families.registry import family_of
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import CheckpointError

ALL = slice(None)


@dataclass(frozen=True)
class Share:
    """Rows of a stored tensor.

    Attributes:
        name: of the tensor.
        number, count: such as 1 of 3 equal parts, counted from 0.
    """

    name: str
    number: int = 0
    count: int = 1

    def shape(self, whole: Checkpoint) -> tuple[int, ...]:
        """Of the part; CheckpointError where the tensor does not come apart so."""
        rows, *rest = whole.shape(self.name)
        if rows % self.count:
            raise CheckpointError(f"'{self.name}' does not come apart evenly", got=rows, wanted=f"of {self.count}")
        return (rows // self.count, *rest)

    def span(self, whole: Checkpoint, rows: slice) -> slice:
        """Where rows of the part lie in the tensor."""
        size = self.shape(whole)[0]
        start, stop, _ = rows.indices(size)
        return slice(self.number * size + start, self.number * size + stop)


class TextPart(Checkpoint):
    """The text model of a checkpoint, under the names and with the configuration that it has on its own."""

    def __init__(self, whole: Checkpoint, config: dict[str, Any], stored: Mapping[str, Share]) -> None:
        self._whole, self._stored = whole, dict(stored)
        self.kind, self.path, self.files = whole.kind, whole.path, whole.files
        self.config, self.generation_config = config, whole.generation_config

    def names(self) -> list[str]:  # noqa: D102
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:  # noqa: D102
        return self._stored[name].shape(self._whole)

    def _read(self, name: str, rows: slice) -> np.ndarray:
        share = self._stored[name]
        return self._whole._read(share.name, share.span(self._whole, rows))

    def _about(self) -> tuple[str, str, str]:
        return self._whole._about()

    @property
    def info(self) -> CheckpointInfo:  # type: ignore[override]
        """Of the whole checkpoint."""
        return self._whole.info


class VisionTensors:
    """Every tensor of the tower and the projector, read when it is asked for. Implements `Weights` (ops/base.py)."""

    def __init__(
        self, whole: Checkpoint, family: MultimodalFamily, config: VisionConfig, stored: Mapping[str, Share]
    ) -> None:
        """Checks names and shapes.

        Raises:
            CheckpointError: tensors are missing, or of another shape than the configuration says.
        """
        self._whole, self._family, self._config, self._stored = whole, family, config, stored
        self._shapes: dict[str, tuple[int, ...]] = {**config.matrix_shapes(), **config.vector_shapes()}
        missing = sorted(set(self._shapes) - set(stored))
        if missing:
            got = f"missing: {', '.join(missing[:10])}"
            raise CheckpointError("the vision tower's tensors are not those of its configuration", got=got)
        for name, shape in self._shapes.items():
            found = stored[name].shape(whole)
            if int(np.prod(found)) != int(np.prod(shape)) or (len(shape) == 2 and found[0] != shape[0]):
                raise CheckpointError(
                    f"'{stored[name].name}' has another shape than the configuration says", got=list(found),
                    wanted=list(shape), hint="config.json and the weights are of different models",
                )  # fmt: skip

    def names(self) -> list[str]:
        """Canonical names, matrices first."""
        return list(self._shapes)

    def read(self, name: str) -> np.ndarray:
        """Values, float32 [rows, columns] or [n]; CheckpointError for NaN or infinity among them."""
        values = self._family.restore(self._config, name, self.stored(name, ALL))
        return np.ascontiguousarray(values.reshape(self._shapes[name]))

    def stored(self, name: str, rows: slice, out: np.ndarray | None = None) -> np.ndarray:
        """Rows of a tensor as it is stored, float32, in `out` or not."""
        share = self._stored[name]
        return self._whole.read(share.name, share.span(self._whole, rows), out)

    def matrix(self, name: str) -> PlainTensor:
        """Of a linear; KeyError if there is none."""
        return PlainTensor(self.read(name))

    def vector(self, name: str) -> np.ndarray:
        """A norm, a bias or a table; KeyError if there is none."""
        return self.read(name)

    def has(self, name: str) -> bool:
        """Whether there is one of this name."""
        return name in self._shapes


@dataclass(frozen=True)
class Parts:
    """A model that sees.

    Attributes:
        family: which one.
        config, tensors: of the text model.
        text: its checkpoint.
        vision_config, vision: of the tower and the projector.
        placeholder: id at whose places features go.
        given: the configuration of the whole.
    """

    family: MultimodalFamily
    config: DecoderConfig
    tensors: CanonicalTensors
    text: TextPart
    vision_config: VisionConfig
    vision: VisionTensors
    placeholder: int
    given: Mapping[str, Any]


def decoder_config(family: MultimodalFamily, config: Mapping[str, Any]) -> DecoderConfig:
    """The shape of the text model."""
    given = family.text(config)
    found = family_of(given).configure(given)
    return found if family.head_bias else replace(found, head_bias=False)


def open_parts(whole: Checkpoint, family: MultimodalFamily) -> Parts:
    """Both models of a checkpoint. Names and shapes are checked here, values as they are read.

    Raises:
        CheckpointError: an unknown option; missing or unexpected tensors; a wrong shape.
    """
    settled = family.settle(whole) if family.settle else whole.config
    vision_config, config = family.vision(settled), decoder_config(family, settled)
    found: dict[str, dict[str, Share]] = {"text": {}, "vision": {}}
    unexpected = []
    for stored in whole.names():
        try:
            named = family.name(vision_config, stored)
        except KeyError:
            unexpected.append(stored)
            continue
        if named is not None:
            parts = (named[1],) if isinstance(named[1], str) else named[1]
            found[named[0]] |= {part: Share(stored, i, len(parts)) for i, part in enumerate(parts)}
    if unexpected:
        raise CheckpointError(
            "the checkpoint has tensors that its configuration does not explain", got=", ".join(unexpected[:10])
        )
    given: dict[str, Any] = {key: whole.config[key] for key in ("bos_token_id", "eos_token_id") if key in whole.config}
    text = TextPart(whole, {**given, **family.text(settled)}, found["text"])
    place = family.placeholder(settled)
    if place >= config.vocab_size:
        raise CheckpointError("the placeholder of pictures lies outside the vocabulary", got=place)
    tensors = CanonicalTensors(text, family_of(text.config), config)
    vision = VisionTensors(whole, family, vision_config, found["vision"])
    return Parts(family, config, tensors, text, vision_config, vision, place, settled)
