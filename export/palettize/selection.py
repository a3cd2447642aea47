"""Which form of each linear was chosen, and why: made once for a store, and kept beside its matrices."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from satchel.export.palettize.budget import Options, total, within_bytes, within_loss
from satchel.export.palettize.spec import Budget, Recipe
from satchel.export.palettize.store import WeightStore
from satchel.runtime.errors import UsageError
from satchel.runtime.manifest import ChosenWidths

FILE = "selection.json"


@dataclass(frozen=True)
class Selection:
    """The widths of a model's linears.

    Attributes:
        forms: canonical name -> form, such as "4" or "4-symmetric" (candidates.py).
        average_bits: of a weight of these linears, scales and LUTs counted.
        expected_kl: mean KL divergence in nats a token that they cost, from second-order losses times `correction`.
        correction: measured over second-order loss, where it was measured; 1 elsewhere.
        budget: what they were chosen to meet, in words; "" where nothing was to be chosen.
    """

    forms: dict[str, str]
    average_bits: float
    expected_kl: float
    correction: float
    budget: str

    @property
    def counts(self) -> dict[str, int]:
        """Form -> how many linears have it."""
        return dict(sorted(Counter(self.forms.values()).items()))

    def corrected(self, correction: float) -> Selection:
        """The same choice, of which it was measured how much more it loses."""
        expected = self.expected_kl / self.correction * correction
        return replace(self, expected_kl=round(expected, 6), correction=correction)

    def summary(self) -> ChosenWidths:
        """As a manifest tells it."""
        return ChosenWidths(self.budget, self.average_bits, self.expected_kl, self.correction, self.counts)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def select(
    options: Options, weights: int, recipe: Recipe, *, other_bytes: int = 0, correction: float = 1.0
) -> Selection:
    """Chooses a form for each linear.

    Args:
        options: linear -> form -> cost.
        weights: how many these linears have.
        recipe: whose budget is to be met.
        other_bytes: of the bundle beside these linears, for a budget of bytes.
        correction: see Selection, for a budget of loss.

    Raises:
        UsageError: the budget cannot be met.
    """
    chosen = _chosen(options, weights, recipe.budget, other_bytes, correction)
    cost = total(options, chosen)
    average, expected = 8 * cost.bytes / weights, cost.loss * correction
    return Selection(chosen, round(average, 4), round(expected, 6), correction, str(recipe.budget or ""))


def _chosen(
    options: Options, weights: int, budget: Budget | None, other_bytes: int, correction: float
) -> dict[str, str]:
    if budget is None:
        return {name: next(iter(costs)) for name, costs in options.items()}
    if budget.max_kl is not None:
        chosen = within_loss(options, budget.max_kl / correction)
        least = total(options, chosen).loss * correction
        if least > budget.max_kl:
            raise UsageError(
                "the model loses more than it may", got=f"a KL of {least:.4f} with the most bits of each linear",
                wanted=budget, hint="allow wider weights, such as --weights int8, or a larger KL",
            )  # fmt: skip
        return chosen
    limit = budget.max_bytes - other_bytes if budget.max_bytes is not None else _bytes(budget, weights)
    chosen = within_bytes(options, limit)
    least_bytes = total(options, chosen).bytes
    if budget.max_bytes is not None and least_bytes > limit:
        raise UsageError(
            "the model cannot be made so small", got=f"{(other_bytes + least_bytes) / 1e6:.1f} MB with the fewest bits",
            wanted=budget, hint="allow more, or fewer bits in the recipe",
        )  # fmt: skip
    return chosen


def _bytes(budget: Budget, weights: int) -> int:
    assert budget.average_bits is not None
    return int(budget.average_bits * weights / 8)


def apply(selection: Selection, forms: WeightStore, store: WeightStore) -> None:
    """Makes the chosen of all `forms` the matrices of a store. What was written down is done again after a kill."""
    write_selection(selection, store)
    for name, form in selection.forms.items():
        store.adopt(forms, name, form)


def write_selection(selection: Selection, store: WeightStore) -> None:
    """Notes what was chosen beside a store's matrices."""
    aside = store.folder / f"{FILE}.part"
    aside.write_text(json.dumps(selection.to_json(), sort_keys=True))
    aside.replace(store.folder / FILE)


def read_selection(store: WeightStore) -> Selection | None:
    """What was written down, if it was."""
    with suppress(OSError, ValueError):  # not there, or damaged
        return Selection(**json.loads((store.folder / FILE).read_bytes()))
    return None
