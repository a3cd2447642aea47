"""Speech -> text: which of the two kinds of models a checkpoint holds."""

from __future__ import annotations

from satchel.export.tasks import ctc, encoder_decoder_speech
from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint


def build(checkpoint: TaskCheckpoint) -> Built:
    """A model that says a character a frame, or an encoder and a decoder."""
    kind = encoder_decoder_speech if checkpoint.config.is_encoder_decoder else ctc
    return kind.build(checkpoint)
