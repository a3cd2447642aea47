"""What an export knows of a model that sees beside its text model, before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass

from satchel.export.checkpoint import Checkpoint
from satchel.export.tokenizer import BundleTokenizer
from satchel.export.vision.checkpoint import Parts, VisionTensors
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.preprocess import processor_options, read_preparation
from satchel.export.vision.prompts import GoldenPicture, golden_picture, image_tokens
from satchel.runtime.image_tokens import ImageTokens
from satchel.runtime.images import ImagePreparation


@dataclass(frozen=True)
class Vision:
    """The part that sees.

    Attributes:
        config, tensors: of the tower and the projector.
        images: what is done to a picture.
        tokens: what it becomes in a prompt.
    """

    config: VisionConfig
    tensors: VisionTensors
    images: ImagePreparation
    tokens: ImageTokens

    @property
    def picture(self) -> GoldenPicture:
        """The picture of the golden prompts."""
        return golden_picture(self.images)

    @property
    def shown(self) -> int:
        """Rows that it becomes."""
        return self.tokens.rows * len(self.picture.prepared.pixels)


def read_vision(whole: Checkpoint, parts: Parts, tokenizer: BundleTokenizer | None) -> Vision:
    """The part that sees of a checkpoint.

    Raises:
        CheckpointError, TokenizerError: it is incomplete, or asks for what is not supported.
    """
    given = processor_options(whole.path, parts.family, parts.vision_config)
    images = read_preparation(given, parts.vision_config)
    words = parts.family.words(parts.given) if parts.family.words else None
    known = tokenizer.tokenizer.token_to_id(words.placeholder) if words is not None and tokenizer is not None else None
    tokens = image_tokens(parts.vision_config, parts.placeholder if known is None else known, tokenizer, words)
    return Vision(parts.vision_config, parts.vision, images, tokens)
