"""What the reference has behind each layer, for bundles that are to tell where a device parts from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.export.job import Job
from satchel.export.ops.base import Weights
from satchel.runtime.errors import CheckpointError, UsageError
from satchel.runtime.golden import Golden
from satchel.runtime.golden_layers import MOST_ROWS, GoldenLayers
from satchel.runtime.golden_vision import spread

if TYPE_CHECKING:
    from satchel.export.reference import Reference

FORMATS = ("onnx", "coreml")


def check_layers(job: Job) -> None:
    """Raises UsageError where a bundle of this job could not say what lies behind its layers."""
    formats = sorted({plan.format for plan in job.plans} - set(FORMATS))
    if formats:
        what = "golden layers are for ONNX and Core ML: other programs give their outputs only"
        raise UsageError(what, got=formats, wanted=FORMATS, hint="leave --golden-layers out, or choose --format onnx")
    if job.model.vision is not None:
        raise UsageError("golden layers of models that see are not written", hint="leave --golden-layers out")


def golden_layers(job: Job, golden: Golden, weights: Weights) -> GoldenLayers:
    """The residual stream behind each layer along the first golden prompt, of the reference and of these weights.

    The reference is loaded once more: what is asked for rarely needs no place in the steps that are kept.

    Raises:
        CheckpointError: transformers has other layers than our reading of the configuration.
    """
    from satchel.export.reference import Reference  # imports torch

    sequence = golden.prompts[0].sequence
    rows = [int(i) for i in spread(len(sequence), MOST_ROWS)]
    context = min(plan.context_length for plan in job.plans)
    with Reference(job.model.source, streamed=job.memory.streamed, context=context) as reference:
        original = layer_outputs(reference, sequence)[:, rows]
        reference.load_weights(weights)
        return GoldenLayers(
            tuple(rows), {"reference": original, "weights": layer_outputs(reference, sequence)[:, rows]}
        )


def layer_outputs(reference: Reference, ids: Sequence[int]) -> np.ndarray:
    """What each layer of the reference adds up to: float32 [layers, ids, channels]."""
    found: list[np.ndarray] = []

    def keep(module: Any, given: Any, out: Any) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        found.append(hidden[0].float().numpy().copy())

    hooks = [layer.register_forward_hook(keep) for layer in _layers(reference)]
    try:
        reference.logits(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return np.stack(found)


def _layers(reference: Reference) -> Iterable[Any]:
    """The model's layers: the list of so many modules that holds the most."""
    import torch

    lists = [
        module
        for module in reference.model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == reference.config.layers
    ]
    if not lists:
        raise CheckpointError("transformers' model has no list of its layers", wanted=reference.config.layers)
    return max(lists, key=lambda each: sum(1 for _ in each.modules()))
