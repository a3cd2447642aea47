"""The recipe of each plan: what the device's scheme needs, and what a user asked for besides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from satchel.devices.plan import Plan
from satchel.export.palettize.spec import (
    AFFINE_WIDTHS,
    WIDTHS,
    Budget,
    Effort,
    EmbeddingName,
    Recipe,
    WeightsName,
)
from satchel.export.palettize.widths import fitting
from satchel.runtime.errors import UsageError
from satchel.runtime.sizes import parse_size

AVERAGE_BITS = 4.48
"""Of a palette by default, scales and LUTs counted, so that SmolLM2 takes less than 90 MB with its embedding at 8 bits;
the loss of other averages is in docs/quantization.md."""
AVERAGE_INT4_BITS = 4.56
"""The same for int4: a little less than all blocks with zero points would take."""
DEFAULT_WIDTHS = (4, 6, 8)
BUDGET_WIDTHS = (2, 3, 4, 6, 8)
"""Widths of a palette that are measured where a user's budget may want more or less than the default does."""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of the weights beyond the scheme; None leaves it to the device and the effort.

    Attributes:
        effort: see Recipe; None is "normal".
        widths: bits that the linears may have.
        budget: what to choose among them by; needs no widths.
        overrides: see Recipe.
        embedding: see Recipe.
        weights: the scheme instead of the device's own.
        no_zero_points: see Recipe.
    """

    effort: Effort | None = None
    widths: tuple[int, ...] | None = None
    budget: Budget | None = None
    overrides: tuple[tuple[str, int], ...] = ()
    embedding: EmbeddingName | None = None
    weights: WeightsName | None = None
    no_zero_points: tuple[str, ...] = ()


def make_wishes(
    effort: str | None = None, *, bits: int | None = None, max_size: str | int | None = None,
    max_kl: float | None = None, weights: str | None = None, recipe: Wishes | None = None,
) -> Wishes:  # fmt: skip
    """What a user asks, from the arguments of pipeline.export, of which `recipe` is what its file says.

    Raises:
        UsageError: they exclude each other, or one is out of range.
    """
    given = {"bits": bits, "max_size": max_size, "max_kl": max_kl}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(
            "the bits of the weights follow from one figure", got=" and ".join(named), wanted="one of bits, max_size "
            "and max_kl", hint="for more, write a recipe"
        )  # fmt: skip
    if effort is not None and effort not in get_args(Effort):
        raise UsageError("unknown effort", got=effort, wanted=", ".join(get_args(Effort)))
    budget = None
    if max_size is not None:
        budget = Budget(max_bytes=parse_size(max_size, "the size of a bundle"))
    elif max_kl is not None:
        budget = Budget(max_kl=max_kl)
    asked = Wishes(effort, None if bits is None else (bits,), budget, weights=weights)  # type: ignore[arg-type]  # the planner checks
    return asked if recipe is None else _joined(asked, recipe)


def _joined(asked: Wishes, recipe: Wishes) -> Wishes:
    """A recipe, with what it leaves open as the arguments say."""
    told = {"effort": recipe.effort, "weights": recipe.weights, "bits": recipe.widths, "budget": recipe.budget}
    also = {"effort": asked.effort, "weights": asked.weights, "bits": asked.widths, "budget": asked.budget}
    twice = [key for key in told if told[key] is not None and also[key] is not None]
    settled = recipe.widths is not None and len(recipe.widths) == 1
    if twice or (recipe.budget and asked.widths) or (settled and asked.budget):
        raise UsageError(
            "the recipe settles that already", got=", ".join(twice) or "bits and a budget",
            hint="leave the option out, or take the key out of the recipe",
        )  # fmt: skip
    return replace(
        recipe, effort=recipe.effort or asked.effort, weights=recipe.weights or asked.weights,
        widths=recipe.widths or asked.widths, budget=recipe.budget or asked.budget,
    )  # fmt: skip


def recipe_for(plan: Plan, wishes: Wishes) -> Recipe:
    """The recipe of a plan; plans that differ in nothing that matters to the weights get equal ones.

    Raises:
        UsageError: the wishes contradict each other or the plan.
    """
    scheme = plan["weights"]
    if scheme == "palette":
        recipe = _palette(plan, wishes)
    elif scheme == "int4":
        recipe = _int4(plan, wishes)
    elif wishes.widths or wishes.budget or wishes.overrides or wishes.no_zero_points:
        raise UsageError(
            "bits are chosen for palettes and int4", got=f"weights {scheme} for {plan.device}", wanted="palette or int4"
        )
    else:
        recipe = Recipe(weights=scheme)  # type: ignore[arg-type]  # Recipe checks it
    return replace(recipe, embedding=wishes.embedding or recipe.embedding, no_zero_points=wishes.no_zero_points)


def _palette(plan: Plan, wishes: Wishes) -> Recipe:
    xnnpack = plan.format == "executorch" and plan["target"] == "xnnpack"
    if xnnpack and (wishes.budget or len(wishes.widths or ()) > 1):
        raise UsageError(
            "XNNPACK stores a palette as int8 codes, whose size a budget cannot change", got=plan.device,
            hint="--weights int4, or another format",
        )  # fmt: skip
    widths, budget, overrides, effort = wishes.widths, wishes.budget, wishes.overrides, wishes.effort or "normal"
    if budget:
        widths = _stored(plan, widths or BUDGET_WIDTHS)
    elif widths is None and effort == "low":
        widths = (4,)
        overrides = (*overrides, *((f"*.{n}_proj", 8) for n in "kv" if plan["kv_weights"] == "int8"))
    elif widths is None or len(widths) > 1:
        widths = widths or DEFAULT_WIDTHS
        budget = Budget(average_bits=AVERAGE_BITS)
    groups = "rows16" if plan["lut_groups"] == "rows16" else "tensor"
    return Recipe("palette", widths, overrides, budget, effort, lut_groups=groups)  # type: ignore[arg-type]


def with_all_widths(plan: Plan, recipe: Recipe) -> Recipe:
    """A recipe that chooses among all widths that the plan's file can have, which a default leaves out.

    Raises:
        UsageError: its scheme has one width.
    """
    if recipe.weights not in WIDTHS:
        wanted = ", ".join(WIDTHS)
        raise UsageError("one width, of which there is nothing to choose", got=recipe.weights, wanted=wanted)
    return replace(recipe, widths=_stored(plan, BUDGET_WIDTHS) if recipe.weights == "palette" else AFFINE_WIDTHS)


def _stored(plan: Plan, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Those widths that the plan's file has: what it stores wider is no saving."""
    if plan.format != "coreml":
        return widths
    return tuple(sorted({fitting(bits, blockwise=plan["target"] == "iOS18") for bits in widths}))


def _int4(plan: Plan, wishes: Wishes) -> Recipe:
    xnnpack = plan["scale_dtype"] == "bfloat16"
    widths, budget, effort = wishes.widths, wishes.budget, wishes.effort or "normal"
    if widths is None and effort == "low" and budget is None:
        widths = (4,)
    elif widths is None or len(widths) > 1:
        widths, budget = widths or (4, 8), budget or Budget(average_bits=AVERAGE_INT4_BITS)
    return Recipe(
        "int4", widths, wishes.overrides, budget, effort, symmetric=xnnpack,
        scale_dtype="bfloat16" if xnnpack else "float16",
    )  # fmt: skip
