"""Text that a model writes itself, seeded: what it will meet in use, without a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from satchel.export.palettize.spec import Calibration
from satchel.export.progress import Progress, silent


@torch.inference_mode()
def generate_text(
    model: Any, starts: Sequence[Sequence[int]], calibration: Calibration, *, progress: Progress = silent
) -> np.ndarray:
    """Samples one sequence from each start, in one batch with a cache.

    Args:
        model: a transformers causal language model.
        starts: token ids, at least one each; repeated in turn until there are `calibration.own`.
        calibration: how much to generate; `length` is clipped to what the model was trained for.
        progress: told after each token.

    Returns:
        int64 [calibration.own, length].
    """
    random = torch.Generator().manual_seed(calibration.seed)
    length = min(calibration.length, int(getattr(model.config, "max_position_embeddings", calibration.length)))
    given = [list(starts[i % len(starts)])[:length] for i in range(calibration.own)]
    out = torch.zeros(calibration.own, length, dtype=torch.int64)
    forced = torch.zeros_like(out, dtype=torch.bool)
    for row, ids in enumerate(given):
        out[row, : len(ids)] = torch.tensor(ids)
        forced[row, : len(ids)] = True
    cache = None
    for at in range(length - 1):
        step = model(input_ids=out[:, at : at + 1], past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        chances = torch.softmax(step.logits[:, -1].float() / calibration.temperature, -1)
        drawn = torch.multinomial(chances, 1, generator=random)[:, 0]
        out[:, at + 1] = torch.where(forced[:, at + 1], out[:, at + 1], drawn)
        progress("Generating calibration text", at + 1, length - 1)
    return np.asarray(out.numpy())
