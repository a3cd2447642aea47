"""The weights of every bundle of a job: each distinct recipe once, each step kept in the work folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from satchel.export.bundle_size import other_bytes
from satchel.export.calibration.divergence import Mixed, divergence
from satchel.export.calibration.fisher import curvatures
from satchel.export.calibration.means import mean_squares
from satchel.export.calibration.texts import calibration_ids, held_back_ids
from satchel.export.calibration.tuning import tuned
from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.golden import Prompt, golden, golden_prompts, is_large, room_for, with_weights
from satchel.export.job import Job
from satchel.export.palettize.budget import Options, total, within_loss
from satchel.export.palettize.candidates import forms_of
from satchel.export.palettize.compress import compress_matrix, compress_model, store_candidates
from satchel.export.palettize.selection import Selection, apply, read_selection, select, write_selection
from satchel.export.palettize.source_codes import keep_codes
from satchel.export.palettize.spec import CALIBRATION, Effort, Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.parallel import Workers
from satchel.export.progress import Progress
from satchel.export.reference import Reference
from satchel.export.tools import tool_versions
from satchel.export.vision.prompts import seeing_prompts
from satchel.export.vision.reference import SeeingReference
from satchel.export.vision.weights import compress_vision, vision_bytes
from satchel.export.work import WorkFolder
from satchel.runtime.errors import BundleError, CheckpointError
from satchel.runtime.golden import Golden

DONE = "done"
"""An empty file beside golden data that are complete."""


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


@dataclass(frozen=True)
class Setting:
    """How the weights of a job are made.

    Attributes:
        seed: of the calibration text.
        text: to calibrate on instead of what Calibration says.
        streamed: whether the reference model is read a piece at a time.
        workers: who works on single matrices.
        progress: told what is being done.
    """

    seed: int
    text: str | None
    streamed: bool
    workers: Workers
    progress: Progress


def compressed_weights(job: Job, work: WorkFolder, setting: Setting) -> dict[Recipe, Compressed]:
    """The weights under each recipe of a job, and their golden data.

    Raises:
        CheckpointError: the model answers with NaN or infinity.
        UsageError: a budget that cannot be met; a calibration text that is too short.
    """
    stages = _Stages(job, work, setting)
    try:
        return stages.run()
    finally:
        stages.close()


def measured_losses(job: Job, work: WorkFolder, setting: Setting) -> tuple[Options, Selection]:
    """What each form of each linear costs under the first recipe of a job, and what its budget chooses.

    Raises:
        UsageError: as compressed_weights.
    """
    stages = _Stages(job, work, setting)
    try:
        return stages.losses(job.recipes[0])
    finally:
        stages.close()


class _Stages:
    """The steps of one job. The reference model is loaded when the first step asks for it."""

    def __init__(self, job: Job, work: WorkFolder, setting: Setting) -> None:
        self._job, self._work, self._setting = job, work, setting
        self._model, self._config = job.model, job.model.config
        self._original = Uncompressed(job.model.tensors)
        self._loaded: Reference | None = None
        text = hashlib.sha256(setting.text.encode()).hexdigest() if setting.text is not None else None
        vision = self._model.vision
        # All that every result depends on, beside the recipe.
        self._origin: list[Any] = [
            self._model.info.source, asdict(self._config), asdict(self._model.rules), tool_versions(), setting.seed,
            text, setting.streamed, *([asdict(vision.config), asdict(vision.images)] if vision else ()),
        ]  # fmt: skip

    def run(self) -> dict[Recipe, Compressed]:
        answers = self._answers()
        stores = {r: WeightStore(self._step("weights", *self._made_from(r))) for r in self._job.recipes}
        self._measure([r for r, s in stores.items() if r.curved and not self._is_chosen(s)])
        for recipe, store in stores.items():
            self._fill(recipe, store)
        return {r: Compressed(s, self._with_weights(answers, s), read_selection(s)) for r, s in stores.items()}

    def losses(self, recipe: Recipe) -> tuple[Options, Selection]:
        self._measure([recipe])
        forms = self._measured(recipe)
        return self._options(recipe, forms), self._select(recipe, forms)

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.close()

    def _step(self, kind: str, *made_from: Any) -> Path:
        return self._work.step(kind, *self._origin, *made_from)

    def _made_from(self, recipe: Recipe) -> list[Any]:
        """What the weights under a recipe depend on."""
        return [recipe.to_json(), self._room(recipe), *(["tuned"] if self._is_tuned(recipe) else [])]

    def _is_tuned(self, recipe: Recipe) -> bool:
        return recipe.tunable and self._job.memory.tuned

    def _reference(self) -> Reference:
        if self._loaded is None:
            self._setting.progress("Loading the reference model", 0, 1)
            self._loaded = self._load()
            self._setting.progress("Loading the reference model", 1, 1)
        return self._loaded

    def _load(self) -> Reference:
        if self._model.vision is None:
            context = min(plan.context_length for plan in self._job.plans)
            return Reference(self._model.source, streamed=self._setting.streamed, context=context)
        pictured = [prompt.ids for prompt in self._prompts() if prompt.pictured]
        vision = self._model.vision
        return SeeingReference(
            self._model.source.path, vision.picture, vision.tokens.id, pictured, streamed=self._setting.streamed
        )

    def _prompts(self) -> list[Prompt]:
        length, vision = min(plan.context_length for plan in self._job.plans), self._model.vision
        if vision is None:
            return golden_prompts(self._config, self._model.tokenizer, length)
        room = room_for(self._config, length)
        picture = vision.picture.prepared
        vocabulary, brief = self._config.vocab_size, is_large(self._config)
        return seeing_prompts(vision.tokens, self._model.tokenizer, picture, vocabulary, room, brief=brief)

    def _answers(self) -> Golden:
        """What the reference model says."""
        prompts = self._prompts()
        return _kept(self._step("answers", [asdict(p) for p in prompts]), lambda: self._ask(prompts))

    def _ask(self, prompts: list[Prompt]) -> Golden:
        try:
            return golden(self._reference(), prompts, progress=self._setting.progress)
        except CheckpointError:
            for name in self._model.tensors.names():
                self._model.tensors.read(name)  # raises for NaN and infinity: that is the tensor to blame
            raise

    def _with_weights(self, answers: Golden, store: WeightStore) -> Golden:
        def ask() -> Golden:
            return with_weights(answers, self._reference(), store, self._setting.progress)

        return _kept(store.folder / "golden", ask)

    def _ids(self, effort: Effort) -> np.ndarray:
        """The calibration text, int64 [sequences, length]."""
        calibration = replace(CALIBRATION[effort], seed=self._setting.seed)
        path = self._step("calibration", asdict(calibration)) / "ids.npy"
        with suppress(OSError, ValueError, EOFError):  # not there, or damaged
            return np.asarray(np.load(path))
        text = self._setting.text
        ids = calibration_ids(self._reference(), self._model.tokenizer, calibration, text, self._setting.progress)
        aside = path.with_suffix(".part")
        with aside.open("wb") as file:
            np.save(file, ids)
        aside.replace(path)
        return ids

    def _forms(self, recipe: Recipe) -> dict[str, tuple[str, ...]]:
        return {name: forms_of(name, columns, recipe) for name, (_, columns) in self._config.linear_shapes().items()}

    def _measured(self, recipe: Recipe) -> WeightStore:
        """Where forms are that serve every budget."""
        return WeightStore(self._step("forms", recipe.measured.to_json()))

    def _is_chosen(self, store: WeightStore) -> bool:
        return read_selection(store) is not None and all(map(store.has, self._config.linear_shapes()))

    def _measure(self, recipes: Sequence[Recipe]) -> None:
        """Stores every form of every linear, for all recipes of one effort in one pass over its curvature."""
        for effort in sorted({recipe.effort for recipe in recipes}):
            wanted: dict[Recipe, dict[str, tuple[str, ...]]] = {}
            for recipe in recipes:
                if recipe.effort == effort:
                    known = wanted.setdefault(recipe.measured, {})
                    for name, forms in self._forms(recipe).items():
                        known[name] = tuple(sorted({*known.get(name, ()), *forms}))
            for _ in range(2):  # once more for what an ended run left damaged in layers behind it
                self._measure_forms(effort, wanted)

    def _measure_forms(self, effort: Effort, wanted: Mapping[Recipe, Mapping[str, tuple[str, ...]]]) -> None:
        stores = {recipe: self._measured(recipe) for recipe in wanted}
        if not any(stores[recipe].lacking(*item) for recipe, names in wanted.items() for item in names.items()):
            return
        # A layer that an ended run finished is not visited again, so that the folder is one of these very forms.
        folder = self._step("curvature", effort, [[recipe.to_json(), names] for recipe, names in wanted.items()])
        layers = curvatures(
            self._config, self._original, self._ids(effort), folder,
            seed=self._setting.seed, progress=self._setting.progress,
        )  # fmt: skip
        found = (curvature for _, curvature in layers)
        store_candidates(self._model.tensors.read, found, wanted, stores, workers=self._setting.workers)
        self._work.drop(folder)

    def _fill(self, recipe: Recipe, store: WeightStore) -> None:
        """Chooses among the forms, and compresses what has none."""
        vision = self._model.vision
        if vision is not None:
            compress_vision(vision.tensors, vision.config, vision.images, recipe, store, self._setting.progress)
        if recipe.weights == "source":
            keep_codes(self._model.tensors, self._config, store, self._setting.progress)
            return
        if recipe.curved:
            forms = self._measured(recipe)
            selection = read_selection(store) or self._select(recipe, forms)
            if self._is_tuned(recipe):
                self._tune(recipe, selection, forms, store)
            else:
                if recipe.tunable:
                    self._setting.progress("Not tuning the rounded weights: too little memory", 1, 1)
                apply(selection, forms, store)
        statistics = {}
        if recipe.calibrated and not recipe.curved and not all(map(store.has, self._config.matrix_shapes())):
            statistics = mean_squares(self._config, self._original, self._ids(recipe.effort), self._setting.progress)
        compress_model(
            self._model.tensors.read, self._config, statistics, recipe, store, workers=self._setting.workers,
            progress=self._setting.progress,
        )  # fmt: skip

    def _tune(self, recipe: Recipe, selection: Selection, forms: WeightStore, store: WeightStore) -> None:
        """Makes what tuning makes of the chosen forms the matrices of a store."""
        write_selection(selection, store)
        if all(map(store.has, selection.forms)):
            return
        folder = self._step("tuning", *self._made_from(recipe), selection.forms)
        found = tuned(
            self._config, self._original, self._rounded(recipe, forms, selection.forms), self._ids(recipe.effort),
            folder, seed=self._setting.seed, progress=self._setting.progress,
        )  # fmt: skip
        for name, matrix in found:
            store.put_matrix(name, matrix)
        self._work.drop(folder)

    def _rounded(self, recipe: Recipe, forms: WeightStore, chosen: Mapping[str, str]) -> Mixed:
        """The model whose linears have the chosen forms."""
        return Mixed(self._original, forms, chosen, lambda name, w: compress_matrix(name, w, None, recipe))

    def _options(self, recipe: Recipe, store: WeightStore) -> Options:
        return {name: store.costs(name, forms) for name, forms in self._forms(recipe).items()}

    def _select(self, recipe: Recipe, store: WeightStore) -> Selection:
        options = self._options(recipe, store)
        weights = sum(rows * columns for rows, columns in self._config.linear_shapes().values())
        correction = 1.0
        if recipe.budget is not None and recipe.budget.max_kl is not None:
            correction = self._correction(recipe, store, options, within_loss(options, recipe.budget.max_kl))
        selection = select(options, weights, recipe, other_bytes=self._room(recipe), correction=correction)
        if self._room(recipe) and not is_large(self._config):  # of a large model two passes more take minutes
            selection = selection.corrected(self._correction(recipe, store, options, selection.forms))
        return selection

    def _correction(self, recipe: Recipe, store: WeightStore, options: Options, chosen: Mapping[str, str]) -> float:
        """By how much the measured loss of a choice exceeds the second-order one, on text held back.

        What the embedding and the head lose is part of it. A choice near the one that is looked for tells most.
        """
        ids = held_back_ids(self._ids(recipe.effort), self._model.tokenizer, self._config, self._setting.seed)
        other = self._rounded(recipe, store, chosen)
        measured = divergence(self._config, self._original, other, ids, self._setting.progress)
        return measured / max(total(options, chosen).loss, 1e-9)

    def _room(self, recipe: Recipe) -> int:
        """Bytes that a budget must leave for the rest of the largest bundle of a recipe; 0 for other budgets."""
        if recipe.budget is None or recipe.budget.max_bytes is None:
            return 0
        plans = [plan for plan, asked in zip(self._job.plans, self._job.recipes, strict=True) if asked == recipe]
        vision = self._model.vision
        seeing = vision_bytes(vision.config, recipe, vision.shown) if vision else 0
        return seeing + max(other_bytes(self._model, plan, recipe.embedding) for plan in plans)


def _kept(folder: Path, make: Callable[[], Golden]) -> Golden:
    """Golden data from a folder, or made and put there."""
    if (folder / DONE).exists():
        with suppress(BundleError):  # damaged
            return Golden.read(folder)
    found = make()
    found.write(folder)
    (folder / DONE).touch()
    return Golden.read(folder)
