"""The weights of every bundle of a job: each distinct recipe once, each step kept in the work folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from satchel.export.calibration.divergence import Mixed, divergence
from satchel.export.calibration.fisher import curvatures
from satchel.export.calibration.means import mean_squares
from satchel.export.calibration.texts import calibration_ids, held_back_ids
from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.golden import Prompt, golden, golden_prompts, with_weights
from satchel.export.job import Job, Model
from satchel.export.palettize.compress import compress_model, store_candidates
from satchel.export.palettize.selection import Selection, apply, read_selection, select
from satchel.export.palettize.spec import CALIBRATION, Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.parallel import Workers
from satchel.export.progress import Progress
from satchel.export.reference import Reference
from satchel.export.tools import tool_versions
from satchel.export.work import WorkFolder
from satchel.runtime.errors import CheckpointError
from satchel.runtime.golden import Golden


@dataclass(frozen=True)
class Compressed:
    """What a recipe made of a model.

    Attributes:
        store: every matrix and vector.
        golden: what the reference model and these weights say.
        selection: which widths were chosen; None where there was nothing to choose.
    """

    store: WeightStore
    golden: Golden
    selection: Selection | None


class Compression:
    """Makes the weights of a job.

    Args:
        job: what is wanted.
        work: where each step's result is kept.
        seed: of the calibration text.
        text: to calibrate on instead of what Calibration says.
        streamed: whether the reference model is read a piece at a time.
        workers: who works on single matrices.
        progress: told what is being done.
    """

    def __init__(
        self, job: Job, work: WorkFolder, *, seed: int, text: str | None, streamed: bool, workers: Workers,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._job, self._work, self._seed, self._text = job, work, seed, text
        self._streamed, self._workers, self._progress = streamed, workers, progress
        self._loaded: Reference | None = None
        self._altered = False
        text_digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
        # Everything that the results depend on, beside the recipe.
        self._origin = [
            job.model.info.source, asdict(job.model.config), job.model.tokenizer is not None, seed, text_digest,
            streamed, tool_versions(),
        ]  # fmt: skip

    def run(self) -> dict[Recipe, Compressed]:
        """The weights under each recipe of the job."""
        recipes = list(dict.fromkeys(self._job.recipes))
        try:
            answers = self._answers()
            stores = {recipe: self._store(recipe) for recipe in recipes}
            self._fill({recipe: store for recipe, store in stores.items() if not _complete(store)})
            return {
                recipe: Compressed(store, self._with_weights(answers, store), read_selection(store))
                for recipe, store in stores.items()
            }
        finally:
            if self._loaded is not None:
                self._loaded.close()
                self._loaded = None

    @property
    def _model(self) -> Model:
        return self._job.model
