"""Which linears of a model hurt when they are rounded, and what a budget makes of that."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from satchel.export.job import make_job
from satchel.export.palettize.budget import Options
from satchel.export.palettize.candidates import SYMMETRIC, Cost
from satchel.export.palettize.selection import Selection
from satchel.export.palettize.spec import Effort, EmbeddingName, WeightsName
from satchel.export.parallel import Workers
from satchel.export.pipeline import read_text
from satchel.export.progress import Progress, silent
from satchel.export.recipe import Wishes, make_wishes, with_all_widths
from satchel.export.recipes.recipe_file import recipe_text
from satchel.export.work import work_folder
from satchel.runtime.errors import UsageError

REFERENCE_BITS = 4
"""Losses are compared where every linear has as many."""


@dataclass(frozen=True)
class Linear:
    """One linear of a layer.

    Attributes:
        name: canonical, such as "layers.3.mlp.up_proj".
        weights: how many it has.
        costs: form -> loss (KL divergence in nats a token, to second order) and bytes.
        chosen: the form that the budget gives it.
    """

    name: str
    weights: int
    costs: dict[str, Cost]
    chosen: str

    @property
    def layer(self) -> int:
        """Its layer's number."""
        return int(self.name.split(".")[1])

    @property
    def kind(self) -> str:
        """What it is in its layer, such as "up_proj"."""
        return self.name.rpartition(".")[2]

    @property
    def loss(self) -> float:
        """At the bits that linears are compared at."""
        return (self.costs.get(str(REFERENCE_BITS)) or next(iter(self.costs.values()))).loss


@dataclass(frozen=True)
class Sensitivity:
    """What was measured of a model.

    Attributes:
        model_id: its name.
        device: whose plan the forms follow.
        weights: "palette" or "int4".
        effort: "normal" or "high".
        linears: in the order of the layers.
        selection: what the budget chooses.
        embedding: scheme of the embedding and the head.
    """

    model_id: str
    device: str
    weights: WeightsName
    effort: Effort
    linears: tuple[Linear, ...]
    selection: Selection
    embedding: EmbeddingName

    @property
    def forms(self) -> list[str]:
        """All forms that were measured."""
        return sorted({form for linear in self.linears for form in linear.costs})

    @property
    def kinds(self) -> list[str]:
        """Kinds of linears in the order of a layer."""
        return list(dict.fromkeys(linear.kind for linear in self.linears))

    def worst(self, count: int) -> list[Linear]:
        """The linears that lose most at 4 bits."""
        return sorted(self.linears, key=lambda linear: (-linear.loss, linear.name))[:count]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: losses in nats a token."""
        return {
            "model": self.model_id, "device": self.device, "weights": self.weights, "effort": self.effort,
            "selection": self.selection.to_json(),
            "linears": [
                {
                    "name": linear.name, "weights": linear.weights, "chosen": linear.chosen,
                    "costs": {form: {"loss": c.loss, "bytes": c.bytes} for form, c in linear.costs.items()},
                }
                for linear in self.linears
            ],
        }  # fmt: skip

    def recipe(self) -> str:
        """A recipe as TOML that settles what was chosen: an export by it searches nothing, and gives these weights."""
        bits = {linear.name: int(linear.chosen.partition("-")[0]) for linear in self.linears}
        common = Counter(b for linear in self.linears if (b := bits[linear.name]) and linear.chosen != SYMMETRIC)
        base = max(common, key=lambda b: (common[b], b), default=REFERENCE_BITS)
        bare = tuple(linear.name for linear in self.linears if linear.chosen == SYMMETRIC)
        settled = tuple((name, b) for name, b in bits.items() if b != base or name in bare)
        wishes = Wishes(self.effort, (base,), None, settled, self.embedding, self.weights, bare)
        about = f"{self.model_id} for {self.device}"
        return recipe_text(wishes, [f"Bits as measured: {about}.", f"{self.selection.summary()}."])


def sensitivity(
    model: str | Path,
    device: str,
    *,
    format: str | None = None,
    weights: str | None = None,
    effort: str | None = None,
    max_size: str | int | None = None,
    max_kl: float | None = None,
    context: int | None = None,
    calibration: str | Path | None = None,
    seed: int = 0,
    output: str | Path = "bundles",
    work: str | Path | None = None,
    tokenizer: bool = True,
    max_memory: int | str | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Measures every linear of a model at every width that the device's plan can store.

    Args:
        model, format, effort, max_size, max_kl, context, calibration, seed, output, work, tokenizer, max_memory,
            progress: as `export` has them. Nothing but the work folder is written; an `export` with the same `work`
            measures nothing again.
        device: name of a profile, or the path of your own.
        weights: "palette" or "int4" instead of the device's own.

    Raises:
        CheckpointError, TokenizerError, DeviceError, PlanError, UsageError, OutputError, MissingPackageError: as
            `export` raises them.
    """
    if effort == "low":
        raise UsageError("losses are measured from effort normal on", got=effort, wanted="normal or high")
    wishes = make_wishes(effort, max_size=max_size, max_kl=max_kl, weights=weights)
    job = make_job(
        model, [device], wishes, format=format, context=context, output=Path(output), tokenizer=tokenizer,
        overwrite=True, max_memory=max_memory,
    )  # fmt: skip
    recipe, text = with_all_widths(job.plans[0], job.recipes[0]), read_text(calibration)
    job = replace(job, recipes=(recipe,))
    with work_folder(work, job.output, progress) as folder:
        from satchel.export.weights import Setting, measured_losses  # imports torch

        setting = Setting(seed, text, job.memory.streamed, Workers(job.memory.workers), progress)
        options, selection = measured_losses(job, folder, setting)
    shapes = job.model.config.linear_shapes()
    linears = tuple(_linears(options, selection, shapes))
    about = job.model.info.model_id, job.plans[0].device, recipe.weights, recipe.effort
    return Sensitivity(*about, linears, selection, recipe.embedding)


def _linears(options: Options, selection: Selection, shapes: dict[str, tuple[int, int]]) -> list[Linear]:
    return [
        Linear(name, shapes[name][0] * shapes[name][1], dict(costs), selection.forms[name])
        for name, costs in options.items()
    ]
