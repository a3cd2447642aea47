"""The choice of a form for each linear, against trying all choices."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satchel.export.palettize.budget import fewest, total, within_bytes, within_loss
from satchel.export.palettize.candidates import Cost
from satchel.export.palettize.selection import select
from satchel.export.palettize.spec import Budget, Recipe
from satchel.runtime.errors import UsageError

FORMS = ("4", "6", "8")
TABLES = st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=5)


def options_of(table):
    return {
        str(i): {f: Cost(loss, 10 * int(f)) for f, loss in zip(FORMS, sorted(row, reverse=True), strict=True)}
        for i, row in enumerate(table)
    }


def all_choices(options):
    for forms in product(FORMS, repeat=len(options)):
        yield dict(zip(options, forms, strict=True))


@given(TABLES, st.integers(0, 500))
def test_bytes_are_spent_as_well_as_can_be_up_to_one_step(table, limit):
    options = options_of(table)
    found = total(options, within_bytes(options, limit))
    assert found.bytes <= max(limit, total(options, fewest(options)).bytes)
    # Greedy steps along the hull are the best for what they spend, but for the last that did not fit.
    cheaper = [total(options, c) for c in all_choices(options)]
    assert all(found.loss <= c.loss + 1e-9 for c in cheaper if c.bytes <= found.bytes - 40)


@given(TABLES, st.floats(0.05, 5))
def test_a_loss_is_met_with_the_fewest_bytes_up_to_one_step(table, limit):
    options = options_of(table)
    found = total(options, within_loss(options, limit))
    least = min(total(options, c).loss for c in all_choices(options))
    assert found.loss <= limit + 1e-9 or found.loss == pytest.approx(least)
    good = [total(options, c) for c in all_choices(options) if total(options, c).loss <= limit]
    assert all(found.bytes <= c.bytes + 40 for c in good)


def test_a_form_without_gain_is_never_paid_for():
    options = {"a": {"4": Cost(0.5, 40), "6": Cost(0.6, 60), "8": Cost(0.5, 80)}}
    assert within_bytes(options, 10**6) == {"a": "4"} == within_loss(options, 0.1)


def test_budgets_that_cannot_be_met_say_what_can():
    options = options_of([(0.5, 0.3, 0.1)] * 3)
    with pytest.raises(UsageError, match=r"so small.*0\.0 MB with the fewest bits"):
        select(options, 100, Recipe(widths=(4, 6), budget=Budget(max_bytes=100), effort="normal"))
    strict = Recipe(widths=(4, 6), budget=Budget(max_kl=0.5), effort="normal")
    with pytest.raises(UsageError, match=r"KL of 0\.6000 with the most bits"):
        select(options, 100, strict, correction=2.0)
    met = select(options, 100, Recipe(widths=(4, 6), budget=Budget(max_kl=0.7), effort="normal"), correction=2.0)
    assert met.counts == {"8": 3} and met.expected_kl == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"widths": (4, 6)}, "need a budget"),
        ({"widths": (5,)}, "unknown number of bits"),
        ({"weights": "int4", "widths": (3,)}, "unknown number of bits for int4"),
        ({"weights": "int8", "widths": (4, 8)}, "palettes and int4"),
        ({"widths": (4, 6), "budget": Budget(max_kl=0.1)}, "measured losses"),
        ({"effort": "extreme"}, "unknown effort"),
    ],
)
def test_recipes_that_make_no_sense(options, says):
    with pytest.raises(UsageError, match=says):
        Recipe(**options)


@pytest.mark.parametrize("figures", [{}, {"max_kl": 1, "max_bytes": 1}, {"max_kl": 0}])
def test_budgets_that_make_no_sense(figures):
    with pytest.raises(UsageError, match="budget"):
        Budget(**figures)
