"""Everything that the README and benchmarks/README.md claim, measured in one run on this machine.

usage: python benchmarks/run.py [--with-coremltools] [--keep FOLDER]

--with-coremltools also runs coremltools' own route, whose k-means takes some ten minutes. Prints a table and writes
benchmarks/results.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Cost, measure

HERE = Path(__file__).parent
FP32_BYTES = 4 * 134_515_008  # SmolLM2-135M, the tied matrix once
DEVICES = {"coreml": "iphone-15-pro", "onnx": "pixel-9", "executorch": "raspberry-pi-5"}


class Bench:
    """The steps, in order, over one working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "smollm2"
        self.results: dict[str, Any] = {"machine": {"processor": platform.processor() or platform.machine()}}

    def python(self, name: str, *arguments: object) -> Cost:
        """Runs a Python module or script and notes what it cost."""
        print(f"... {name}", file=sys.stderr, flush=True)
        cost = measure([sys.executable, *map(str, arguments)], self.folder / f"{name}.log")
        self.results[name] = {
            "seconds": round(cost.seconds, 1), "cpu_seconds": round(cost.cpu_seconds, 1),
            "peak_mb": round(cost.peak_mb),
        }  # fmt: skip
        return cost

    def export(self, name: str, device: str, *options: str) -> Path:
        """`satchel export` of the Hugging Face folder; returns the bundle."""
        out = self.folder / name
        self.python(
            name, "-m", "satchel", "export", self.model, "-d", device, "-o", out, "--overwrite", "--no-validate",
            *options,
        )  # fmt: skip
        (bundle,) = out.glob("*.satchel")
        size = sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file())
        self.results[name] |= {"bundle_mb": round(size / 1e6, 1), "smaller_by": round(1 - size / FP32_BYTES, 4)}
        return bundle

    def genai(self) -> Path:
        """onnxruntime-genai's builder with its defaults for int4."""
        out, cache = self.folder / "genai", self.folder / "cache"
        self.python(
            "genai_builder", "-m", "onnxruntime_genai.models.builder", "-i", self.model, "-o", out, "-p", "int4",
            "-e", "cpu", "-c", cache, "--extra_options", "hf_token=false",
        )  # fmt: skip
        return out

    def run(self, with_coremltools: bool) -> None:
        """All of it."""
        self.python("hf_folder", HERE / "hf_folder.py", self.model)
        genai = self.genai()
        bundles = {form: self.export(f"export_{form}", device) for form, device in DEVICES.items()}
        affine = self.export("export_onnx_int4", DEVICES["onnx"], "--weights", "int4")
        if with_coremltools:
            self.python("coremltools_route", HERE / "coremltools_route.py", self.model, self.folder / "route.mlpackage")
        speed = self.python("speed", HERE / "speed.py", genai, bundles["onnx"], affine)
        self.results["speed"] |= json.loads(speed.output)
        quality = self.python(
            "quality", HERE / "quality.py", "smollm2", bundles["onnx"], affine, bundles["executorch"], genai
        )  # fmt: skip
        self.results["quality"] |= json.loads(quality.output)
        interpreter = self.python("coreml", HERE / "coreml.py", bundles["coreml"])
        self.results["coreml"] |= json.loads(interpreter.output)
        self.python("validate_coreml", "-m", "satchel", "validate", bundles["coreml"])
        parity = json.loads((bundles["coreml"] / "parity.json").read_text())
        self.results["lowering_coreml"] = {
            run["name"]: {
                route: next(f["value"] for f in figures if f["figure"] == "kl_mean")
                for route, figures in run["comparisons"]["lowering"].items()
                if route != "greedy"
            }
            for run in parity["runs"]
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with-coremltools", action="store_true")
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="satchel-bench-"))
    folder.mkdir(exist_ok=True, parents=True)
    try:
        bench = Bench(folder)
        bench.run(options.with_coremltools)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    (HERE / "results.json").write_text(json.dumps(bench.results, indent=2) + "\n")
    for name, values in bench.results.items():
        print(f"{name:20} {json.dumps(values)}")


if __name__ == "__main__":
    main()
