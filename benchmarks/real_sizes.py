"""Exports models of published shapes with random weights, and checks what comes out: memory, sizes, a decode step.

usage: real_sizes.py [MODEL...] [--format F]... [--effort low|normal|high] [--folder DIR] [--keep] [--write]

For each model a checkpoint is made (random_checkpoint.py) and exported, each format in a process of its own, whose peak
memory and seconds the operating system counts. The formats of a model share a work folder, as `--work` allows: what the
reference model says, and the weights of formats that take the same, are computed for the first. Then each bundle is
opened in a further process, and takes decode steps (decode_step.py). Rows are printed; with --write they also replace
those of the same model, format and effort in real_sizes.json, and the table of docs/real-sizes.md is made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from measure import Cost, measure  # this process stays small on purpose: a child's peak begins at its parent's
from real_sizes_table import write_document

HERE = Path(__file__).parent
DEVICES = {"coreml": "iphone-15-pro", "onnx": "pixel-9", "executorch": "raspberry-pi-5"}
STEPS = {"coreml": 2, "onnx": 8, "executorch": 8}
"""Decode steps that are taken; the interpreter expands its palettes at every one."""
SMALLER = 75, 88
"""By so many per cent a bundle is to be below fp32."""
FORECAST = 3
"""By so many per cent the forecast of `satchel preflight` may be off."""


@dataclass(frozen=True)
class Model:
    """What is made of a shape.

    Attributes:
        formats: to export to.
        memory: for --max-memory, which is also what the export is held to.
        devices: other than DEVICES.
        lean: whether finished weights go before the next format's are made, so that the disk holds it all.
    """

    formats: tuple[str, ...] = ("coreml", "onnx")
    memory: str = "2GB"
    devices: dict[str, str] = field(default_factory=dict)
    lean: bool = False


ALL = ("coreml", "onnx", "executorch")
MODELS = {
    "phi-1.5": Model(ALL),
    "phi-2": Model(),
    "openelm-3b": Model(),
    "phi-3-mini": Model(ALL),
    # No phone holds it: a Mac, whose packages are near the 2 GiB that the engine maps of one file.
    "phi-3-medium": Model(memory="3GB", devices={"coreml": "macbook-m4", "onnx": "macbook-m4"}, lean=True),
}
TINY = {"tiny-phi": Model(ALL), "tiny-openelm": Model(("onnx",))}


@dataclass(frozen=True)
class Row:
    """One export, and what was found of it.

    Attributes:
        model, parameters, format, device, weights, effort: what it was.
        seconds, cpu_seconds, peak_mb: of the export's process.
        load: the machine's load average at its end; above 2 its two cores had more to do than this.
        memory: --max-memory.
        from_before: whether an export before it, into another format, had done a part of the work.
        bytes, forecast_bytes: of the bundle, and what preflight said.
        below_fp32: per cent.
        opened: of decode_step.py, for Core ML.
        runs: of decode_step.py, by name.
        step_peak_mb: of that process.
    """

    model: str
    parameters: int
    format: str
    device: str
    weights: str
    effort: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    load: float
    memory: str
    from_before: bool
    bytes: int
    forecast_bytes: int
    below_fp32: float
    opened: dict[str, Any]
    runs: dict[str, dict[str, Any]]
    step_peak_mb: float

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        low, high = SMALLER
        off = 100 * abs(self.forecast_bytes / self.bytes - 1)
        checks = {
            f"peak {self.peak_mb:.0f} MB of {self.memory}": self.peak_mb * 1e6 <= float(self.memory[:-2]) * 1e9,
            f"{self.below_fp32}% below fp32": low <= self.below_fp32 <= high,
            f"forecast off by {off:.1f}%": off <= FORECAST,
            f"rules broken: {self.opened.get('errors')}": not self.opened.get("errors"),
        }
        for name, run in self.runs.items():
            checks[f"{name}: NaN or infinity"] = run["finite"]
            checks[f"{name}: {', '.join(run['broken'])} beyond the limits"] = not run["broken"]
        return [fault for fault, fine in checks.items() if not fine]


def rows(
    name: str, model: Model, folder: Path, *, effort: str, formats: Sequence[str] = (), keep: bool = False
) -> Iterator[Row]:
    """Makes the checkpoint unless it is there, and yields a row for each format as soon as it is known.

    Raises:
        subprocess.CalledProcessError: a step failed; `stderr` has the end of what it said.
    """
    checkpoint = folder / name
    if not (checkpoint / "config.json").exists():
        cost = measure(
            [sys.executable, str(HERE / "random_checkpoint.py"), name, str(checkpoint)], _log(folder, "make")
        )
        print(f"{name}: checkpoint made in {cost.seconds:.0f} s", file=sys.stderr, flush=True)
    wanted = [f for f in model.formats if not formats or f in formats]
    for form in wanted:
        yield _row(name, model, folder, form, effort, from_before=form != wanted[0])
        if not keep:
            shutil.rmtree(folder / form)
        for weights in (folder / "work").glob("weights-*") if model.lean else ():
            shutil.rmtree(weights)


def _row(name: str, model: Model, folder: Path, form: str, effort: str, *, from_before: bool) -> Row:
    device = model.devices.get(form, DEVICES[form])
    target = [str(folder / name), "--device", device, "--format", form, "--effort", effort]
    forecast = _preflight(target)
    rest = ["--max-memory", model.memory, "--work", str(folder / "work"), "--output", str(folder / form), "--overwrite"]
    cost = measure([*_satchel("export"), *target, *rest, "--no-validate", "--json"], _log(folder, form))
    load = os.getloadavg()[0]
    (bundle,) = json.loads(cost.output)["bundles"]
    step, said = _decode(Path(bundle["path"]), STEPS[form], _log(folder, "step"))
    return Row(
        name, bundle["parameters"], form, device, bundle["weights"], effort, round(cost.seconds),
        round(cost.cpu_seconds), round(cost.peak_mb), round(load, 1), model.memory, from_before, bundle["bytes"],
        forecast["storage"]["bundle_bytes"], round(100 - 25 * bundle["bytes"] / bundle["parameters"], 1),
        said["opened"], said["runs"], round(step.peak_mb),
    )  # fmt: skip


def _preflight(target: list[str]) -> dict[str, Any]:
    """What was forecast; a model that does not fit the device (exit code 1) is forecast all the same."""
    done = subprocess.run([*_satchel("preflight"), *target, "--json"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    (found,) = json.loads(done.stdout)["devices"]
    return dict(found)


def _decode(bundle: Path, steps: int, log: Path) -> tuple[Cost, dict[str, Any]]:
    cost = measure([sys.executable, str(HERE / "decode_step.py"), str(bundle), "--steps", str(steps)], log)
    return cost, json.loads(cost.output.splitlines()[-1])


def _satchel(command: str) -> list[str]:
    return [sys.executable, "-m", "satchel", command]


def _log(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def main() -> None:
    """Prints a row a line, and ends with 1 if one has a fault."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"of {', '.join([*MODELS, *TINY])}; by default all but the tiny"
    )
    given.add_argument("--format", action="append", choices=ALL, default=[])
    given.add_argument("--effort", default="low", choices=("low", "normal", "high"))
    given.add_argument("--max-memory", help="instead of each model's own, such as 6GB")
    given.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    given.add_argument("--keep", action="store_true", help="keep checkpoints, bundles and work")
    given.add_argument("--write", action="store_true", help="into real_sizes.json and docs/real-sizes.md")
    options = given.parse_args()
    known = MODELS | TINY
    if unknown := [name for name in options.models if name not in known]:
        given.error(f"no such model: {', '.join(unknown)}")
    base = options.folder or Path(tempfile.mkdtemp(prefix="real-sizes-"))
    faults = 0
    for name in options.models or list(MODELS):
        model = known[name]
        if options.max_memory:
            model = replace(model, memory=options.max_memory)
        try:
            for row in rows(name, model, base / name, effort=options.effort, formats=options.format, keep=options.keep):
                print(json.dumps(asdict(row)), flush=True)
                for fault in row.faults:
                    print(f"{row.model}, {row.format}: {fault}", file=sys.stderr, flush=True)
                faults += len(row.faults)
                if options.write:
                    write_document([asdict(row)])
        except subprocess.CalledProcessError as error:
            print(error.stderr or error.output, file=sys.stderr)
            raise
        finally:
            if not options.keep:
                shutil.rmtree(base / name, ignore_errors=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
