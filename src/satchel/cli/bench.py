"""`satchel bench`: how fast a bundle is on this machine."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from satchel.cli.console import Bars, errors, megabytes, out, print_json
from satchel.runtime.backends import load_backend
from satchel.runtime.backends.base import Backend
from satchel.runtime.bundle import open_bundle, read_manifest
from satchel.runtime.errors import UsageError
from satchel.runtime.module.bundle import ModuleBundle, open_module_bundle
from satchel.runtime.module.golden import Case
from satchel.runtime.module.session import ModuleSession


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .satchel folder.")],
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after it.")] = 64,
    repeat: Annotated[int, typer.Option(min=1, help="Times that all is measured; medians are shown.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Of ONNX Runtime.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure load time, prefill and decode tokens a second on this machine (not on the device); of a module its calls.

    A Core ML bundle is interpreted where there is no Core ML, which says nothing of its speed on a device.
    """
    with errors(as_json):
        if "module" in read_manifest(bundle):
            _show(_module(open_module_bundle(bundle), repeat, threads), as_json)
            return
        opened = open_bundle(bundle)
        entry = opened.manifest.entry
        if prompt_tokens + new_tokens > entry.context_length:
            wanted = f"at most {entry.context_length} together"
            raise UsageError("prompt and answer exceed the context", got=prompt_tokens + new_tokens, wanted=wanted)
        if threads is not None and entry.format != "onnx":
            raise UsageError("--threads is for ONNX bundles", got=entry.format)
        start = time.perf_counter()
        backend = load_backend(opened.folder, entry, **({"threads": threads} if threads else {}))
        load = time.perf_counter() - start
        ids = [i % opened.manifest.tokens.vocab_size for i in range(7, 7 + prompt_tokens)]
        with Bars(enabled=not as_json) as bars:
            runs = []
            for count in range(repeat):
                runs.append(_measure(backend, ids, new_tokens))
                bars("Measuring", count + 1, repeat)
        result = {
            "device_profile": opened.manifest.plan.device,
            "format": entry.format,
            "weights": opened.manifest.weights.scheme,
            "bytes": opened.bytes,
            "load_seconds": round(load, 3),
            "prefill_tokens_per_second": round(statistics.median(r[0] for r in runs), 1),
            "decode_tokens_per_second": round(statistics.median(r[1] for r in runs), 1),
        }
        _show(result, as_json)


def _measure(backend: Backend, ids: list[int], new_tokens: int) -> tuple[float, float]:
    """(prefill, decode) tokens a second."""
    backend.reset()
    start = time.perf_counter()
    token = int(backend.prefill(ids).argmax())
    middle = time.perf_counter()
    for _ in range(new_tokens):
        token = int(backend.step(token).argmax())
    return len(ids) / (middle - start), new_tokens / (time.perf_counter() - middle)


def _module(bundle: ModuleBundle, repeat: int, threads: int | None) -> dict[str, Any]:
    """How long a call of each part takes, with the first of its golden inputs."""
    cases = {case.part: case for case in reversed(bundle.golden.cases)}
    found: dict[str, Any] = {
        "device_profile": bundle.manifest.plan.device,
        "format": bundle.manifest.format,
        "weights": bundle.manifest.weights.scheme,
        "bytes": bundle.bytes,
    }
    with ModuleSession(bundle, **({"threads": threads} if threads else {})) as session:
        for part, case in sorted(cases.items()):
            first = _call(session, case)
            later = statistics.median(_call(session, case) for _ in range(repeat))
            prefix = "" if len(cases) == 1 else f"{part}_"
            found[f"{prefix}load_and_first_call_seconds"] = round(first, 3)
            found[f"{prefix}call_milliseconds"] = round(1e3 * later, 3)
    return found


def _call(session: ModuleSession, case: Case) -> float:
    """Seconds."""
    start = time.perf_counter()
    session.run_part(case.part, case.inputs)
    return time.perf_counter() - start


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    table = Table(show_header=False, box=None)
    for key, value in result.items():
        table.add_row(key.replace("_", " "), megabytes(value) if key == "bytes" else str(value))
    out.print(table)
