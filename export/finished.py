"""Bundles that an earlier run of the same export had finished before it was killed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from satchel.devices.plan import Plan
from satchel.export.job import Job
from satchel.export.palettize.spec import Recipe
from satchel.export.tools import tool_versions
from satchel.export.work import WorkFolder
from satchel.runtime.bundle import MANIFEST, sha256
from satchel.runtime.errors import OutputError
from satchel.runtime.manifest import FormatName


class Finished:
    """What the work folder knows of a job's bundles: the digest of each one's manifest, noted before it appears.

    Args:
        work: of the job.
        job: whose bundles these are.
        made_from: what the weights depend on beside the job.
    """

    def __init__(self, work: WorkFolder, job: Job, *made_from: Any) -> None:
        self._job = job
        model, self._notes = job.model, dict[str, Path]()
        about = [asdict(model.info), asdict(model.rules), asdict(model.generation), job.memory.streamed, *made_from]
        for plan, others, recipe in zip(job.plans, job.also_for, job.recipes, strict=True):
            place = work.place("bundle", *about, others, *self._of_plan(plan, recipe))
            self._notes[plan.device] = place / f"{MANIFEST}.sha256"

    def _of_plan(self, plan: Plan, recipe: Recipe) -> list[Any]:
        tokenizer = self._job.model.tokenizer
        files = tokenizer.files(cast(FormatName, plan.format)) if tokenizer else {}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        target = str(self._job.target(plan).absolute())
        return [plan.to_json(), recipe.to_json(), digests, tool_versions(plan.format), target]

    def note(self, plan: Plan) -> Path:
        """The file that holds the digest of a finished bundle's manifest."""
        return self._notes[plan.device]

    def check(self) -> None:
        """Sees whether a bundle is in the way.

        Raises:
            OutputError: one exists that is neither to be replaced nor a part of this job.
        """
        for plan in self._job.plans:
            if self._job.target(plan).exists() and not self._job.overwrite and not self.has(plan):
                hint = "pass --overwrite, or another --output"
                raise OutputError("the bundle exists already", got=self._job.target(plan), hint=hint)

    def has(self, plan: Plan) -> bool:
        """Whether the bundle of a plan is finished; never where it is to be replaced."""
        note, manifest = self.note(plan), self._job.target(plan) / MANIFEST
        if self._job.overwrite or not note.exists() or not manifest.is_file():
            return False
        return note.read_text() == sha256(manifest)

    def forget(self) -> None:
        """For when all bundles are written: from then on they are in the way like any other."""
        for note in self._notes.values():
            note.unlink(missing_ok=True)
