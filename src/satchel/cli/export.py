"""`satchel export`: a model to a bundle for each device, or for each group of devices that get the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import Bars, errors, megabytes, out, print_json
from satchel.cli.modules import export_modules, is_module, refuse, settled_task
from satchel.cli.overrides import Settings, parse_overrides
from satchel.cli.validate import judged, print_report
from satchel.runtime.errors import UsageError


def command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A Hugging Face folder, a GGUF file, a hub id, smollm2, or a .pt2 file."),
    ],
    device: Annotated[
        list[str],
        typer.Option("--device", "-d", help="A device or group (see `satchel devices`), such as ios; repeat for more."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Such as feature-extraction, text-classification, image-classification, auto."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of a .pt2 file's bundles; the file's own by default.")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="For boxes, segments or depth: of pictures, instead of the model's."),
    ] = None,
    skip_format: Annotated[
        list[str] | None, typer.Option(metavar="FORMAT", help="For a module: a format that no device gets.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="coreml, onnx or executorch; the device's own by default.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="palette, int4, int8, fp16, fp32, or source: a GGUF file's codes.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the cache holds.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Text to calibrate on instead of the model's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of the calibration text.")] = 0,
    effort: Annotated[
        str | None, typer.Option(help="low, normal (the default) or high: how long to look for the best weights.")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Of every linear: 2, 3, 4, 6 or 8; mixed by default.")] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of a bundle, such as 1.2GB; the best quality within it.")
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option(metavar="NATS", help="KL divergence a token; the smallest bundle within it.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.toml", help="What becomes of the weights, see export/recipes."),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep finished steps there for further exports.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the bundles go.")] = Path(
        "bundles"
    ),
    no_tokenizer: Annotated[bool, typer.Option("--no-tokenizer", help="Export a model that has no tokenizer.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace bundles that exist.")] = False,
    max_memory: Annotated[
        str | None, typer.Option(help="For the export, such as 2GB; less is slower. Validation comes on top.")
    ] = None,
    parallel: Annotated[
        str, typer.Option(metavar="WHERE", help="threads, or a cluster that is running: dask[=ADDRESS], ray[=ADDRESS].")
    ] = "threads",
    settings: Settings = None,
    golden_layers: Annotated[
        bool, typer.Option("--golden-layers", help="Keep what the reference has behind each layer, for satchel parity.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--validate/--no-validate", help="Validate each bundle when it is written.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write an app-ready bundle for each device: DIR/<model>-<device>.satchel. Equal plans share one."""
    from satchel.export.pipeline import export  # imports the exporters only when they are needed

    with errors(as_json):
        with Bars(enabled=not as_json) as bars:
            bundles: list[Any] = []
            task = settled_task(model, task)
            if is_module(model, task):
                refuse({
                    "context": context, "calibration": calibration, "seed": seed, "max-size": max_size,
                    "max-kl": max_kl, "recipe": recipe, "work": work, "no-tokenizer": no_tokenizer,
                    "max-memory": max_memory, "parallel": parallel, "golden-layers": golden_layers,
                })  # fmt: skip
                bundles += export_modules(model, task, device, name, {
                    "format": format, "skip_formats": skip_format or (), "weights": weights, "bits": bits or 4,
                    "effort": effort or "normal", "output": output, "overwrite": overwrite,
                    "overrides": parse_overrides(settings), "progress": bars, "image_size": image_size,
                })  # fmt: skip
            else:
                if name or skip_format or image_size:
                    what = "--name, --skip-format and --image-size are for modules"
                    raise UsageError(what, got=model, wanted="--task, or a .pt2")
                bundles += export(
                    model, device, format=format, weights=weights, context=context, calibration=calibration, seed=seed,
                    effort=effort, bits=bits, max_size=max_size, max_kl=max_kl, recipe=recipe, output=output, work=work,
                    tokenizer=not no_tokenizer, overwrite=overwrite, max_memory=max_memory, parallel=parallel,
                    overrides=parse_overrides(settings), golden_layers=golden_layers, progress=bars,
                )  # fmt: skip
            reports = [judged(b, bars) for b in bundles] if check else []
        if as_json:
            print_json({"bundles": [_record(b) for b in bundles], "validation": [r.to_json() for r in reports]})
        else:
            _print_bundles(bundles)
            for bundle, report in zip(bundles, reports, strict=False):
                print_report(bundle, report)
        if any(not r.passed for r in reports):
            raise typer.Exit(1)


def _record(bundle: Any) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "path": str(bundle.folder),
        "device": manifest.plan.device,
        "devices": list(manifest.devices),
        "format": manifest.plan.format,
        "weights": manifest.weights.scheme,
        "context_length": manifest.plan.context_length or None,
        "bytes": bundle.bytes,
        "parameters": manifest.model.parameters,
        **({"bits": str(chosen)} if (chosen := manifest.weights.selection) else {}),
    }


def _print_bundles(bundles: list[Any]) -> None:
    table = Table(
        "device", "format", "weights", "context", "size", "of fp32", "bundle", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for record in map(_record, bundles):
        share = record["bytes"] / (4 * record["parameters"])
        table.add_row(
            record["device"], record["format"], record["weights"], str(record["context_length"] or ""),
            megabytes(record["bytes"]), f"{share:.1%}", record["path"],
        )  # fmt: skip
        for name in record["devices"][1:]:
            table.add_row(name, "", "", "", "", "", "the same", style="dim")
    out.print(table)
    for words in dict.fromkeys(record["bits"] for record in map(_record, bundles) if "bits" in record):
        out.print(words)
