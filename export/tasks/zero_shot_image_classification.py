"""Which of some labels fits a picture best; the labels are given when it is asked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from satchel.export.module.program import Inputs
from satchel.export.tasks.base import Built, Graph
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import Images, images_of
from satchel.export.tasks.text import IDS, MASK, longest_text, pad_id, tokenizer_files, tokens_step
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.tasks.zero_shot import ZeroShot, logits

IMAGE, TEXT = "image_embeds", "text_embeds"
TEMPLATE = "This is a photo of {}."
"""As in transformers' pipeline."""
LABELS = ("a cat", "two dogs", "an airplane", "the sea at night", "a plate with pasta", "people", "a red car", "snow")
SAME = 1e-3
"""How far our logits may be from the model's, over the largest."""


class Tower(torch.nn.Module):
    """One half of a model with two: what one of its methods makes of pictures, or of texts.

    Args:
        model: in eval mode.
        method: such as "get_image_features".
        inputs: names of its arguments.
        output: name of the vectors.
    """

    def __init__(self, model: torch.nn.Module, method: str, inputs: Sequence[str], output: str) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._method, self._inputs, self._output = method, tuple(inputs), output

    def forward(self, *values: torch.Tensor) -> dict[str, torch.Tensor]:
        """float32 [rows, channels], not normalised."""
        found = getattr(self.model, self._method)(**dict(zip(self._inputs, values, strict=True)))
        return {self._output: found if isinstance(found, torch.Tensor) else found.pooler_output}


def build(checkpoint: TaskCheckpoint) -> Built:
    """Both towers, and how their vectors are compared."""
    model: Any = checkpoint.model
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise CheckpointError("a model without two towers", got=type(model).__name__, wanted="such as CLIP or SigLIP")
    images = images_of(checkpoint)
    names = _text_inputs(checkpoint)
    texts = tuple(_encoded(checkpoint, names, label) for label in LABELS)
    graphs = {
        "image": _graph(model, "get_image_features", images.inputs, IMAGE, images.examples, images.kept),
        "text": _graph(model, "get_text_features", names, TEXT, texts, 2),
    }
    answer = {"step": "zero_shot", "image": IMAGE, "text": TEXT, **_comparison(checkpoint, model)}
    _check(checkpoint, images, graphs, ZeroShot(**answer))
    tokens = tokens_step(checkpoint, names) | {"part": "text", "template": TEMPLATE}
    entry = TaskEntry(checkpoint.task, {"image": images.step, "text": tokens}, answer)
    return Built(graphs, entry, tokenizer_files(checkpoint))


def _graph(
    model: torch.nn.Module, method: str, names: Sequence[str], output: str, examples: Sequence[Inputs], kept: int
) -> Graph:
    """A tower; `kept` of its examples are golden."""
    tower = Tower(model, method, names, output)
    return Graph(tower, tuple(names), tuple(examples[:kept]), calibration=tuple(examples[kept:]))


def _text_inputs(checkpoint: TaskCheckpoint) -> tuple[str, ...]:
    model: Any = checkpoint.model
    takes, gives = inspect.signature(model.get_text_features).parameters, checkpoint.tokenizer.model_input_names
    return tuple(name for name in (IDS, MASK) if name in takes and name in (IDS, *gives))


def _encoded(checkpoint: TaskCheckpoint, names: Sequence[str], label: str) -> Inputs:
    """A label in the template, padded to what the tower takes."""
    tokenizer = checkpoint.tokenizer
    pad_id(tokenizer)
    tokenizer.padding_side = "right"
    found = tokenizer(
        TEMPLATE.format(label), truncation=True, max_length=longest_text(checkpoint), padding="max_length",
        return_tensors="pt", return_attention_mask=True,
    )  # fmt: skip
    return {name: torch.as_tensor(found[name]) for name in names}


def _comparison(checkpoint: TaskCheckpoint, model: Any) -> dict[str, Any]:
    """`scale`, `bias` and `function`, as transformers' pipeline chooses it."""
    if not isinstance(getattr(model, "logit_scale", None), torch.Tensor):
        raise CheckpointError("the model has no scale of its logits", got=type(model).__name__)
    bias = getattr(model, "logit_bias", None)
    return {
        "scale": float(model.logit_scale.detach().double().exp()),
        "bias": 0.0 if bias is None else float(bias.detach()),
        "function": "sigmoid" if "siglip" in str(checkpoint.config.model_type) else "softmax",
    }


def _check(checkpoint: TaskCheckpoint, images: Images, graphs: dict[str, Graph], how: ZeroShot) -> None:
    """Raises CheckpointError where the towers, compared so, say something else than the model as a whole."""
    model: Any = checkpoint.model
    picture = graphs["image"].examples[0]
    texts = [*graphs["text"].examples, *graphs["text"].calibration]
    both = {name: torch.cat([one[name] for one in texts]) for name in texts[0]}
    with torch.no_grad():
        wanted = model(**picture, **both).logits_per_image.double().numpy()
        pictures = _said(graphs["image"], picture)[IMAGE].numpy()
        labels = torch.cat([_said(graphs["text"], one)[TEXT] for one in texts]).numpy()
    found = logits(pictures, labels, how)
    if not np.abs(found - wanted).max() <= SAME * max(float(np.abs(wanted).max()), 1.0):
        raise CheckpointError("vectors are compared in a way that is not known", got=type(model).__name__)


def _said(graph: Graph, inputs: Inputs) -> Any:
    return graph.module(*(inputs[name] for name in graph.inputs))
