"""Models of waveforms (Wav2Vec2, HuBERT, and others that share their parts) over windows of one fixed length.

Their own attention mask is one of samples, from which they compute which frames are real. Phones' engines are better
off with the latter itself, which the runtime computes (runtime/tasks/waveform.py): `frame_mask`. A group norm over time
behind the first convolution takes what follows the sound into its statistics, so that padding would change the answer:
here it counts real frames alone, by `norm_mask`. So a padded window gives what the original gives for the sound itself;
where later convolutions hear the padding, as Data2Vec's and Conformer's do, what the original gives for the padded one.
Which of the two is looked at: a model that gives neither is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize

from satchel.export.module.program import Inputs
from satchel.export.tasks.audio import SAME, short_sound, waveform_examples
from satchel.export.tasks.base import Graph
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.runtime.errors import CheckpointError
from satchel.runtime.tasks.waveform import Waveform


class MaskedNorm(torch.nn.Module):
    """A group norm with a group a channel, over the real frames alone.

    Args:
        norm: the original.
    """

    def __init__(self, norm: torch.nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.mask: torch.Tensor | None = None
        """[1, frames]; set by each call of MaskedModel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, channels, frames] -> the same."""
        assert self.mask is not None
        mask = self.mask[:, None]
        share = mask.mean(-1, keepdim=True)  # means of means stay within fp16, which sums would not
        mean = (x * mask).mean(-1, keepdim=True) / share
        variance = ((x - mean) * mask).square().mean(-1, keepdim=True) / share
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight[:, None] + self.bias[:, None]


class MaskedModel(torch.nn.Module):
    """A model of waveforms that is told which frames are real.

    Args:
        model: in eval mode; it is altered.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        for part in model.modules():
            for name in ("weight", "bias"):
                if parametrize.is_parametrized(part, name):  # weight norm of the positions
                    parametrize.remove_parametrizations(part, name)
            if hasattr(part, "_get_feature_vector_attention_mask"):
                part._get_feature_vector_attention_mask = _as_it_is
        self._norms = _exchange_norms(model)

    def forward(self, values: torch.Tensor, frame_mask: torch.Tensor, norm_mask: torch.Tensor | None = None) -> Any:
        """The logits."""
        for norm in self._norms:
            norm.mask = norm_mask
        found = self.model(values, attention_mask=frame_mask > 0.5, return_dict=True)
        for norm in self._norms:
            norm.mask = None
        return {"logits": found["logits"]}


def _as_it_is(frames: int, mask: torch.Tensor, *unused: Any, **options: Any) -> torch.Tensor:
    """In place of what makes a mask of frames of one of samples: it is one of frames already."""
    return mask


def _exchange_norms(model: torch.nn.Module) -> list[MaskedNorm]:
    """The norms over time of the convolutions that make frames, exchanged."""
    found = []
    for part in model.modules():
        norm = getattr(part, "layer_norm", None)
        if isinstance(norm, torch.nn.GroupNorm) and hasattr(part, "conv"):
            if norm.num_groups != norm.num_channels:
                raise CheckpointError("a group norm of several channels a group", got=norm, wanted="one")
            made = MaskedNorm(norm)
            part.layer_norm = made
            found.append(made)
    return found


def waveform_graph(checkpoint: TaskCheckpoint, how: Waveform) -> Graph:
    """The model over windows.

    Raises:
        CheckpointError: it is not built as Wav2Vec2 is.
    """
    if not any(hasattr(part, "_get_feature_vector_attention_mask") for part in checkpoint.model.modules()):
        raise CheckpointError("a model of waveforms of another kind than Wav2Vec2", got=checkpoint.config.model_type)
    examples = waveform_examples(how)
    originals = _originals(checkpoint.model, how, examples[1])
    model = MaskedModel(checkpoint.model)
    if len(model._norms) != (how.norm_mask is not None):
        raise CheckpointError("norms over time that are not known", got=len(model._norms), wanted="one, or none")
    with torch.no_grad():
        found = model(*examples[1].values())["logits"]
    if not any((found[:, : own.shape[1]] - own).abs().max() <= SAME * own.abs().max() for own in originals):
        got = checkpoint.config.model_type
        raise CheckpointError("a padded window is not heard as the model hears the sound", got=got)
    return Graph(model, tuple(examples[0]), examples)


def _originals(model: torch.nn.Module, how: Waveform, example: Inputs) -> list[torch.Tensor]:
    """Logits by the model as it is, real frames or classes: for the sound itself, and padded, with its own mask."""
    window = example[how.input]
    real = torch.arange(how.samples) < short_sound(how)
    with torch.no_grad():
        alone = model(window[:, real], return_dict=True)["logits"]
        padded = model(window, attention_mask=real[None].long(), return_dict=True)["logits"]
    return [alone, padded[:, : alone.shape[1]]]
