"""`satchel preflight`: whether a model fits a device, and how fast it would be, before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, out, print_json
from satchel.cli.fit import MB, may_use, print_loading, print_memory, print_storage, verdict
from satchel.cli.module_preflight import ModuleWishes, tell_module
from satchel.cli.modules import is_module, outline_of, refuse, refuse_size, settled_task
from satchel.cli.overrides import Settings, parse_overrides
from satchel.devices.forecast import Forecast, Request, Suggestion, forecast, largest, suggest
from satchel.devices.groups import expand
from satchel.devices.plan import ModelShape
from satchel.devices.profile import DeviceProfile
from satchel.runtime.errors import UsageError


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
    bits: Annotated[int | None, typer.Option(help="Of every linear: 2, 3, 4, 6 or 8; mixed by default.")] = None,
    effort: Annotated[str | None, typer.Option(help="As of `satchel export`.")] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether MODEL fits a device, with the sum, and forecast sizes, speed and the first load.

    Nothing is exported, and no weights are read or fetched but a .pt2 file's. Exit codes: 0 it fits every device (an
    entitlement may be needed), 1 it does not, 2 bad input.
    """
    with errors(as_json):
        profiles = expand(device)
        task = settled_task(model, task)
        if is_module(model, task):
            refuse({"context": context})
            wishes = ModuleWishes(format, weights, bits, effort, parse_overrides(settings))
            if not tell_module(outline_of(model, task, image_size), profiles, wishes, as_json):
                raise typer.Exit(1)
            return
        refuse_size(model, image_size)
        from satchel.export.recipe import make_wishes  # imports checkpoint readers only when they are needed
        from satchel.export.shape import shape_of

        shape, described = shape_of(model)
        settled = tuple(parse_overrides(settings).items())
        asked = Request(format, weights, context, bits, effort != "low", described.tokenizer_bytes, settled)
        found = [forecast(profile, shape, asked) for profile in profiles]
        _refuse(found, make_wishes(effort, bits=bits, weights=weights), described.source.path)
        ideas = [suggest(p, shape, f, asked) for p, f in zip(profiles, found, strict=True)]
        if as_json:
            print_json(_document(described.source.model_id, shape, profiles, found, ideas))
        elif len(found) == 1:
            _print_one(described.source.model_id, shape, profiles[0], found[0], ideas[0])
        else:
            _print_many(described.source.model_id, profiles, found, ideas)
        if not all(each.fits for each in found):
            raise typer.Exit(1)


def _refuse(found: Sequence[Forecast], wishes: Any, path: Path) -> None:
    """What `satchel export` would refuse: bits for one of the plans, or codes that the file has not.

    Raises:
        UsageError: as there.
    """
    from satchel.export.recipe import recipe_for

    for each in found:
        recipe_for(each.plan, wishes)
    plans = [each.plan for each in found if each.plan["weights"] == "source"]
    if plans and path.suffix != ".gguf":
        raise UsageError("the checkpoint has no codes that could be kept", got=path.name, wanted="a GGUF file")
    if plans:
        from satchel.export.checkpoint import open_checkpoint
        from satchel.export.families.registry import load_family
        from satchel.export.palettize.source_codes import check_source

        config, tensors = load_family(open_checkpoint(path))
        check_source(tensors, config, plans)


def _document(
    model: str,
    shape: ModelShape,
    profiles: Sequence[DeviceProfile],
    found: Sequence[Forecast],
    ideas: Sequence[Sequence[Suggestion]],
) -> dict[str, Any]:
    return {
        "model": model,
        "parameters": shape.all_parameters,
        "devices": [
            each.to_json()
            | {"suggestions": [idea.to_json() for idea in some], "largest_parameters": largest(profile, shape, each)}
            for profile, each, some in zip(profiles, found, ideas, strict=True)
        ],
    }


def _print_one(
    model: str,
    shape: ModelShape,
    profile: DeviceProfile,
    found: Forecast,
    ideas: Sequence[Suggestion],
) -> None:
    words = f"{model} ({shape.all_parameters / 1e9:.3g} billion parameters) on {profile.title}: "
    out.print(Text(words, style="bold") + verdict(found))
    bits = f", {found.request.bits} bits" if found.request.bits else ""
    out.print(f"{found.plan.format}, {found.plan['weights']}{bits}, a context of {found.plan.context_length} tokens\n")
    print_memory(found, "when a conversation fills the context")
    print_storage(found)
    _print_speed(found)
    print_loading(found)
    if ideas:
        out.print("\nWhat would fit:")
    for idea in ideas:
        need = f"{idea.words}: {idea.needed / MB:,.0f} MB, {idea.verdict}"
        out.print(f"  {need}" + (f"  ({idea.options})" if idea.options else ""), markup=False)
    most = largest(profile, shape, found)
    if not found.fits and most:
        out.print(f"  a model of this width and at most {most / 1e9:.2g} billion parameters", markup=False)


def _print_speed(found: Forecast) -> None:
    for name, speed in (("decode", found.decode), ("prefill", found.prefill)):
        figures = f"{speed.value:,.0f} tok/s ({speed.low:,.0f} to {speed.high:,.0f}), bound by {speed.bound}"
        out.print(f"{name}: about {figures}\n  = {speed.formula}", markup=False)


def _print_many(
    model: str,
    profiles: Sequence[DeviceProfile],
    found: Sequence[Forecast],
    ideas: Sequence[Sequence[Suggestion]],
) -> None:
    out.print(model, style="bold", markup=False)
    table = Table(
        "device", "format", "weights", "context", "needs MB", "may use MB", "verdict", "install MB", "decode tok/s",
        "first load s", "would fit", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for profile, each, some in zip(profiles, found, ideas, strict=True):
        decode = each.decode
        table.add_row(
            profile.name, each.plan.format, each.plan["weights"], str(each.plan.context_length),
            f"{each.memory.needed / MB:,.0f}", may_use(each), verdict(each), f"{each.storage.install / MB:,.0f}",
            f"{decode.value:,.0f} ({decode.low:,.0f}-{decode.high:,.0f})", f"{each.loading.first:,.0f}",
            some[0].words if some else "",
        )  # fmt: skip
    out.print(table)
