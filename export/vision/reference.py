"""The reference of a model that sees: transformers' own, which is given the golden picture where a prompt shows it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.families.registry import family_of, multimodal_family
from satchel.export.families.smolvlm import IDEFICS, SMOLVLM
from satchel.export.huggingface import first_line, quiet
from satchel.export.ops.base import Weights
from satchel.export.reference import Reference, left_padded
from satchel.export.vision.checkpoint import open_parts
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.preprocess import processor_name, processor_options
from satchel.export.vision.program import LiveModel
from satchel.export.vision.prompts import GoldenPicture
from satchel.runtime.errors import CheckpointError
from satchel.runtime.golden_vision import MOST_PIXELS, MOST_ROWS, GoldenVision, spread
from satchel.runtime.images import open_picture


class SeeingReference(Reference):
    """A Reference whose prompts may show a picture.

    Args:
        path: a Hugging Face folder.
        picture: the golden one.
        placeholder: id at whose places its features go.
        pictured: ids of the prompts that show it. A sequence that begins with one of them shows it too; placeholders
            in any other are ids like any other, as where a model chooses one by itself.
        streamed: as Reference has it; the tower is streamed too.

    Raises:
        CheckpointError: it cannot be read, by us or by transformers.
    """

    def __init__(
        self,
        path: Path,
        picture: GoldenPicture,
        placeholder: int,
        pictured: Iterable[Sequence[int]] = (),
        *,
        streamed: bool = False,
    ) -> None:
        whole = open_checkpoint(path)
        family = multimodal_family(whole.config)
        assert family is not None
        parts = open_parts(whole, family)
        self.config, self._vision, self._placeholder = parts.config, parts.vision_config, placeholder
        self._path, self._family, self.streamed = path, family, streamed
        self._live = LiveModel(path, parts, streamed)
        self.model, self._stream = self._live.model, self._live.streamed
        names = self._live.names
        places = family_of(parts.text.config).tensor_names(self.config)
        self._places = {c: names["text", p] for c, p in places.items() if isinstance(p, str) and ("text", p) in names}
        self._picture, self._pictured = picture, {tuple(ids) for ids in pictured}
        self._features: Any = None

    def features(self) -> Any:
        """Of the golden picture with the weights that the model holds now, fp32 [tiles * rows, hidden]."""
        import torch

        if self._features is None:
            found = []
            for pixels in torch.from_numpy(self._picture.prepared.pixels).split(1):  # one tile at a time: less memory
                with self._running():
                    given = pixels[None] if self._family in (SMOLVLM, IDEFICS) else pixels
                    found += self.model.get_image_features(given).pooler_output
            self._features = torch.cat([f.reshape(-1, f.shape[-1]) for f in found])
        return self._features

    def seen(self, before: GoldenVision | None, name: str) -> GoldenVision:
        """What the model makes of the golden picture, beside what it made before."""
        rows = self.features().numpy()
        if not np.isfinite(rows).all():
            raise CheckpointError("the vision tower gives NaN or infinity", hint="its weights overflow in fp32")
        pixels = _transformers_pixels(self._path, self._family, self._vision, self._picture)
        kept = {name: rows[spread(len(rows), MOST_ROWS)].astype(np.float32)}
        if before is not None:
            return replace(before, features={**before.features, **kept})
        return GoldenVision(self._picture.png, pixels.shape, pixels.reshape(-1)[spread(pixels.size, MOST_PIXELS)], kept)

    def continuations(
        self, prompts: Sequence[Sequence[int]], steps: int, told: Callable[[int], None] = lambda step: None
    ) -> tuple[list[list[int]], np.ndarray]:
        """As Reference has it; prompts with a picture, which are long, apart from others: padding takes cache too."""
        groups = [[i for i, ids in enumerate(prompts) if self._shows(list(ids)) == shows] for shows in (True, False)]
        chosen: list[list[int]] = [[] for _ in prompts]
        logits: list[Any] = [None] * len(prompts)
        for group in filter(None, groups):
            ids, rows = super().continuations([prompts[i] for i in group], steps, told)
            for place, i in enumerate(group):
                chosen[i], logits[i] = ids[place], rows[place]
        return chosen, np.stack(logits)

    def batch_logits(self, sequences: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:  # type: ignore[override]
        """As Reference has it; the logits of one sequence at a time, since of a long one they are many."""
        hidden: dict[tuple[int, ...], Any] = {}
        for shows in (True, False):
            group = [tuple(s) for s in sequences if self._shows(list(s)) == shows]
            hidden |= zip(group, self._hidden(group), strict=True) if group else ()
        head = self.model.get_output_embeddings()
        for sequence in sequences:
            with self._running():
                logits = head(hidden[tuple(sequence)])
            yield logits.float().numpy()

    def _hidden(self, sequences: Sequence[Sequence[int]]) -> list[Any]:
        """What the head is given of each sequence, fp32 [length, hidden]."""
        seen: list[Any] = []

        def kept(head: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            seen.append(given[0])
            return (given[0][:, -1:],)

        ids, mask = left_padded(sequences)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hook = self.model.get_output_embeddings().register_forward_pre_hook(kept)
        try:
            with self._running():
                self.model(**self._given(ids, mask), attention_mask=mask, position_ids=positions, use_cache=False)
        finally:
            hook.remove()
        return [rows[-len(s) :].clone() for s, rows in zip(sequences, seen[0], strict=True)]

    def _given(self, ids: Any, mask: Any = None) -> dict[str, Any]:
        embedded = self.model.get_input_embeddings()(ids)
        for row in range(len(ids)):
            padding = 0 if mask is None else int((mask[row, -ids.shape[1] :] == 0).sum())
            if self._shows(ids[row, padding:].tolist()):
                places = (ids[row] == self._placeholder).nonzero()[: len(self.features()), 0]
                embedded = embedded.clone()
                embedded[row, places] = self.features()
        return {"inputs_embeds": embedded}

    def _shows(self, ids: list[int]) -> bool:
        return any(tuple(ids[: len(prompt)]) == prompt for prompt in self._pictured)

    def load_weights(self, weights: Weights) -> None:
        """Replaces every matrix, of the vision tower too."""
        import torch

        self._features = None
        if self.streamed:
            self._live.load_weights(weights)
            return
        super().load_weights(weights)
        with torch.no_grad():
            for name in self._vision.matrix_shapes():
                parameter = self.model.get_parameter(self._live.names["vision", name])
                parameter.copy_(torch.from_numpy(weights.matrix(name).dequantize()).reshape(parameter.shape))


def _transformers_pixels(
    path: Path, family: MultimodalFamily, vision: VisionConfig, picture: GoldenPicture
) -> np.ndarray:  # fmt: skip
    """The golden picture as transformers' own image processor over Pillow prepares it, float32 [tiles, 3, h, w].

    Raises:
        CheckpointError: it cannot be loaded, or cuts the picture otherwise than we do.
    """
    with quiet() as transformers:
        try:
            given = processor_options(path, family, vision)
            processor = getattr(transformers, f"{processor_name(given)}Pil").from_dict(given)
            image = open_picture(io.BytesIO(picture.png))
            found = np.asarray(processor(image, return_tensors="np")["pixel_values"], np.float32)
        except Exception as error:
            raise CheckpointError(
                "transformers, which runs the reference, cannot prepare a picture", got=first_line(error)
            ) from error
    wanted = picture.prepared.pixels.shape
    found = found.reshape(-1, *found.shape[-3:])
    if found.shape != wanted:
        raise CheckpointError("transformers prepares pictures otherwise", got=found.shape, wanted=wanted)
    return found
