"""`satchel plan`: what an export would make for a device, each choice with its reason and its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, out, print_json
from satchel.cli.modules import is_module, outline_of, refuse, refuse_size, settled_task
from satchel.cli.overrides import Settings, parse_overrides
from satchel.devices.groups import expand
from satchel.devices.module_plan import make_module_plan
from satchel.devices.plan import Choice, Plan, Rejection, alike
from satchel.devices.planner import make_plan
from satchel.devices.rulebook import Rule, rule

Planner = Callable[..., Plan]
"""A profile, and by name a format, weights and overrides -> a plan."""
CONFIDENCE = {"H": "high", "M": "medium", "L": "low"}
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder (config.json is enough), a GGUF file, a hub id, smollm2, or a .pt2 file."
        ),
    ],
    device: Annotated[
        list[str], typer.Option("--device", "-d", help="A device, a group, or a profile's file; repeat for more.")
    ],
    task: Annotated[str | None, typer.Option(metavar="TASK", help="As of `satchel export`.")] = None,
    image_size: Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="As of `satchel export`.")] = None,
    format: Annotated[str | None, typer.Option(help="coreml, onnx or executorch; the device's own by default.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="palette, int4, int8, fp16, fp32, or source: a GGUF file's codes.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the cache holds.")] = None,
    effort: Annotated[str | None, typer.Option(help="As of `satchel export`.")] = None,
    settings: Settings = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print the rules that the reasons name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every choice that an export of MODEL for a device would make, what was turned down, and why.

    Nothing is exported, and no weights are read or fetched but a .pt2 file's. With --task a folder needs what prepares
    its inputs besides config.json: tokenizer.json, or preprocessor_config.json.
    """
    with errors(as_json):
        asked, profiles = parse_overrides(settings), expand(device)
        task = settled_task(model, task)
        if is_module(model, task):
            refuse({"context": context})
            name, planned = _module_planner(model, task, image_size)
        else:
            refuse_size(model, image_size)
            name, planned = _language_planner(model, effort, context)
        plans = [planned(profile, format=format, weights=weights, overrides=asked) for profile in profiles]
        groups = alike(plans)
        if as_json:
            print_json(_document(name, groups, with_rules=rules))
            return
        for group in groups:
            _print_plan(name, group)
        if rules:
            _print_rules(_named(plans))


def _module_planner(model: str, task: str | None, image_size: str | None) -> tuple[str, Planner]:
    """(name of the module, what plans for it)."""
    found = outline_of(model, task, image_size)
    return found.name, partial(make_module_plan, shape=found.shape)


def _language_planner(model: str, effort: str | None, context: int | None) -> tuple[str, Planner]:
    """(id of the model, what plans for it)."""
    from satchel.export.recipe import make_wishes  # imports checkpoint readers only when they are needed
    from satchel.export.shape import shape_of

    make_wishes(effort)
    shape, described = shape_of(model)
    return described.source.model_id, partial(make_plan, shape=shape, context=context, by_loss=effort != "low")


def _document(model: str, groups: Iterable[Sequence[Plan]], *, with_rules: bool) -> dict[str, Any]:
    plans = [{**group[0].to_json(), "devices": [plan.device for plan in group]} for group in groups]
    named = _named([plan for group in groups for plan in group]) if with_rules else []
    told = [
        {
            "id": r.id, "statement": r.statement, "why": r.why, "advice": r.advice, "source": r.source,
            "confidence": r.confidence, "severity": r.severity, "parameters": r.parameters,
        }
        for r in named
    ]  # fmt: skip
    return {"model": model, "plans": plans, **({"rules": told} if with_rules else {})}


def _named(plans: Iterable[Plan]) -> list[Rule]:
    """The rules that the choices of some plans name, each once, by id."""
    choices = [choice for plan in plans for choice in plan.choices]
    sources = {c.source for c in choices} | {r.source for c in choices for r in _rejections(c)}
    return [rule(identifier) for identifier in sorted({i for source in sources for i in source.split(", ")})]


def _rejections(choice: Choice) -> list[Rejection]:
    return [r for r in choice.rejected if isinstance(r, Rejection)]


def _print_plan(model: str, group: Sequence[Plan]) -> None:
    first = group[0]
    out.print(Text(f"{model} for {', '.join(plan.device for plan in group)}", style="bold"))
    if len(group) > 1:
        out.print(Text(f"one artifact for {len(group)} devices; reasons as for {first.device}", style="dim"))
    table = Table("role", "choice", "why", "turned down", box=box.SIMPLE_HEAD, pad_edge=False)
    for choice in first.choices:
        why = Text.assemble(choice.reason, (f" ({choice.source})", "dim"))
        table.add_row(
            choice.role, Text(choice.value, style="bold"), why, Group(*map(_turned_down, _rejections(choice)))
        )
    out.print(table)


def _turned_down(rejection: Rejection) -> Text:
    return Text.assemble(rejection.value, (f": {rejection.reason} ({rejection.source})", "dim"))


def _print_rules(rules: Iterable[Rule]) -> None:
    for found in rules:
        out.print(f"{found.id:<6}{found.statement}", style=STYLES[found.severity], markup=False)
        out.print(f"      why:    {found.why}", markup=False)
        out.print(f"      do:     {found.advice}", markup=False)
        out.print(f"      source: {found.source} (confidence: {CONFIDENCE[found.confidence]})", markup=False)
