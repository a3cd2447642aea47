"""Reads and writes recipes as TOML; README.md has the grammar. Nothing that is not understood is passed over."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

from satchel.export.palettize.spec import PALETTE_WIDTHS, Budget, Effort, EmbeddingName, WeightsName
from satchel.export.recipe import Wishes
from satchel.runtime.errors import UsageError
from satchel.runtime.sizes import parse_size

SCHEMA = 1
FOLDER = Path(__file__).parent
README = "see export/recipes/README.md"
BUDGETS = ("average_bits", "max_size", "max_kl")


def recipe_names() -> list[str]:
    """Names of the recipes that come with Satchel, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str | Path) -> Wishes:
    """A recipe by name, or a user's own by path (anything that ends in .toml).

    Raises:
        UsageError: there is none, or the file is not as README.md says.
    """
    if str(name).endswith(".toml"):
        return read_recipe(Path(name))
    if str(name) not in recipe_names():
        hint = "name one of these, or pass the path of your own, which ends in .toml"
        raise UsageError("unknown recipe", got=name, wanted=", ".join(recipe_names()), hint=hint)
    return read_recipe(FOLDER / f"{name}.toml")


def read_recipe(path: Path) -> Wishes:
    """A recipe file. Errors as load_recipe."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the recipe cannot be read", got=error, wanted="a TOML file in UTF-8") from error
    return parse_recipe(text, path.name)


def parse_recipe(text: str, where: str) -> Wishes:
    """A recipe from TOML.

    Args:
        text: the file's content.
        where: its name, for messages.

    Raises:
        UsageError: it is not as README.md says.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{where} is no valid TOML", got=reason, hint=README) from error
    _known(table, KEYS, where)
    if "schema" not in table:
        raise UsageError(f"{where} does not say its schema", wanted=f"schema = {SCHEMA}", hint=README)
    values = {key: KEYS[key](value, f"{where}: {key}") for key, value in table.items()}
    return _wishes(values, where)


def _wishes(values: Mapping[str, Any], where: str) -> Wishes:
    budgets = [key for key in BUDGETS if key in values]
    widths = values.get("bits")
    if len(budgets) > 1:
        raise UsageError(f"{where} has several budgets", got=" and ".join(budgets), wanted="one of them", hint=README)
    if budgets and widths and len(widths) == 1:
        got = f"{budgets[0]} and bits = {widths[0]}"
        raise UsageError(f"{where} leaves a budget nothing to choose", got=got, hint="list several bits, or none")
    if widths and len(widths) > 1 and not budgets:
        raise UsageError(f"{where} has several bits to choose from and nothing to choose by", wanted=", ".join(BUDGETS))
    linears = values.get("linear", ())
    return Wishes(
        effort=values.get("effort"), widths=widths, budget=values[budgets[0]] if budgets else None,
        overrides=tuple((match, bits) for match, bits, _ in linears), embedding=values.get("embedding"),
        weights=values.get("weights"), no_zero_points=tuple(match for match, _, zeros in linears if not zeros),
    )  # fmt: skip


def recipe_text(wishes: Wishes, comment: Iterable[str] = ()) -> str:
    """The TOML of a recipe: parse_recipe gives the same wishes.

    Args:
        wishes: to be written.
        comment: lines to begin with.
    """
    lines = [*(f"# {line}" for line in comment), f"schema = {SCHEMA}"]
    lines += [f"{key} = {_quoted(v)}" for key in ("weights", "effort") if (v := getattr(wishes, key)) is not None]
    if wishes.widths:
        widths = list(wishes.widths)
        lines.append(f"bits = {widths[0] if len(widths) == 1 else widths}")
    if wishes.budget:
        lines.append(_budget_line(wishes.budget))
    if wishes.embedding:
        lines.append(f"embedding = {_quoted(wishes.embedding)}")
    for match, bits in wishes.overrides:
        lines += ["", "[[linear]]", f"match = {_quoted(match)}", f"bits = {bits}"]
        lines += ["zero_points = false"] if match in wishes.no_zero_points else []
    return "\n".join(lines) + "\n"


def check_patterns(wishes: Wishes, linears: Iterable[str], where: str = "the recipe") -> None:
    """Whether every pattern matches a linear.

    Args:
        wishes: whose patterns are looked at.
        linears: canonical names of a model's linears.
        where: what the patterns are of, for messages.

    Raises:
        UsageError: names the pattern that matches none, and the linear that is most like it.
    """
    names = list(linears)
    for pattern, _ in wishes.overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(pattern, names, 1, 0) or ["none"]
            hint = "the embedding and the head have a key of their own, embedding"
            raise UsageError(
                f"a pattern of {where} matches no linear", got=pattern, wanted=f"such as {near[0]}", hint=hint
            )


# --- values by key ---


def _schema(value: Any, where: str) -> int:
    return int(_expect(type(value) is int and value == SCHEMA, value, f"{SCHEMA}", where))


def _one_of(kind: Any) -> Callable[[Any, str], str]:
    known = get_args(kind)
    return lambda value, where: str(
        _expect(type(value) is str and value in known, value, ", ".join(map(repr, known)), where)
    )


def _width(value: Any, where: str) -> int:
    return int(_expect(type(value) is int and value in PALETTE_WIDTHS, value, f"one of {PALETTE_WIDTHS}", where))


def _widths(value: Any, where: str) -> tuple[int, ...]:
    found = [_width(item, where) for item in (value if isinstance(value, list) else [value])]
    _expect(bool(found) and len(set(found)) == len(found), value, "widths that differ, at least one", where)
    return tuple(sorted(found))


def _average(value: Any, where: str) -> Budget:
    return Budget(average_bits=_positive(value, where))


def _divergence(value: Any, where: str) -> Budget:
    return Budget(max_kl=_positive(value, where))


def _size(value: Any, where: str) -> Budget:
    _expect(type(value) in (int, str), value, "bytes, such as 80000000 or '80MB'", where)
    size = parse_size(value, where)
    _expect(size > 0, value, "more than nothing", where)
    return Budget(max_bytes=size)


def _positive(value: Any, where: str) -> float:
    good = type(value) in (int, float) and 0 < value <= 1e9  # NaN is not; 1e9 is beyond any use
    return float(_expect(good, value, "a number more than 0", where))


def _linears(value: Any, where: str) -> tuple[tuple[str, int, bool], ...]:
    _expect(isinstance(value, list) and all(isinstance(v, dict) for v in value), value, "[[linear]] tables", where)
    return tuple(_linear(table, f"{where} {number}") for number, table in enumerate(value, 1))


def _linear(table: dict[str, Any], where: str) -> tuple[str, int, bool]:
    _known(table, LINEAR_KEYS, where)
    for key in ("match", "bits"):
        _expect(key in table, sorted(table), f"the key {key} too", where)
    found = {key: LINEAR_KEYS[key](value, f"{where}: {key}") for key, value in table.items()}
    zeros = found.get("zero_points", True)
    _expect(zeros or found["bits"] == 4, f"bits = {found['bits']}", "4 bits where zero_points is given", where)
    return found["match"], found["bits"], zeros


def _pattern(value: Any, where: str) -> str:
    return str(_expect(type(value) is str and value != "", value, "a pattern of names", where))


def _flag(value: Any, where: str) -> bool:
    return bool(_expect(type(value) is bool, value, "true or false", where))


KEYS: dict[str, Callable[[Any, str], Any]] = {
    "schema": _schema,
    "weights": _one_of(WeightsName),
    "effort": _one_of(Effort),
    "bits": _widths,
    "average_bits": _average,
    "max_size": _size,
    "max_kl": _divergence,
    "embedding": _one_of(EmbeddingName),
    "linear": _linears,
}
LINEAR_KEYS: dict[str, Callable[[Any, str], Any]] = {"match": _pattern, "bits": _width, "zero_points": _flag}


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    for key in table:
        if key not in keys:
            near = get_close_matches(key, list(keys), 1)
            hint = f"did you mean {near[0]}?" if near else README
            raise UsageError(f"{where} has an unknown key", got=key, wanted=", ".join(keys), hint=hint)


def _expect(good: bool, value: Any, wanted: str, where: str) -> Any:
    if not good:
        text = _short(value)
        raise UsageError(f"{where} is not what it should be", got=text, wanted=wanted, hint=README)
    return value


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of thousands of digits
        return "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _budget_line(budget: Budget) -> str:
    if budget.max_bytes is not None:
        return f"max_size = {budget.max_bytes}"
    key, value = ("max_kl", budget.max_kl) if budget.max_kl is not None else ("average_bits", budget.average_bits)
    assert value is not None and math.isfinite(value)
    return f"{key} = {value!r}"
