"""Quality and cost of 4 bits: Satchel beside other programs' quantizers, in one run on this machine.

usage: python benchmarks/compare.py [MODEL] [--high] [--coremltools] [--keep FOLDER] [--plot FILE.svg]

MODEL is smollm2 (the default), a Hugging Face folder or a GGUF file. Each program runs in a process of its own from the
same weights: seconds, CPU seconds and peak memory are of that whole process, imports and calibration included. What it
wrote is read back and judged by quality.py in one and the same model in fp32, on held-out text of two kinds. Prints a
table; the figures go into FOLDER/compare.json.

--high adds Satchel's highest effort; --coremltools adds coremltools' k-means, with a LUT for each 16 rows. With --keep
whatever FOLDER has already is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import measure

HERE = Path(__file__).parent
BASELINE = "Satchel palette, normal"
SATCHEL = {"palette": "iphone-15-pro", "int4": "pixel-9", "source": "pixel-9"}
"""Scheme -> device: a palette as Core ML has it, affine codes as ONNX has them. Other devices store the same values."""
LLAMA_CPP = ("Q4_0", "Q4_K_S", "Q4_K_M")
COST = "cost.json"


@dataclass(frozen=True)
class Entry:
    """One way to 4 bits.

    Attributes:
        name: as the table has it.
        command: a Python module or script and its arguments; "{out}" is a path in the entry's folder.
        artifact: what it leaves there, as a glob.
    """

    name: str
    command: tuple[str, ...]
    artifact: str

    @property
    def slug(self) -> str:
        """The name of its folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


def entries(model: str, gguf: Path | None, folder: Path, efforts: list[str], coremltools: bool) -> Iterator[Entry]:
    """What is compared.

    Args:
        model: for Satchel and coremltools.
        gguf: the same weights in fp32 for llama.cpp, or None.
        folder: the same weights in fp32 for onnxruntime-genai.
        efforts: of Satchel.
        coremltools: whether its k-means is waited for.
    """
    for effort in efforts:
        yield satchel("palette", effort, model)
        yield satchel("int4", effort, model)
    if gguf:
        yield satchel("source", "normal", model)
        script = str(HERE / "gguf_quantize.py")
        for kind in LLAMA_CPP:
            yield Entry(f"llama.cpp {kind}", (script, str(gguf), kind, "{out}.gguf"), "out.gguf")
    builder = ("-m", "onnxruntime_genai.models.builder", "-i", str(folder), "-o", "{out}", "-p", "int4", "-e", "cpu")
    yield Entry(
        "onnxruntime-genai int4", (*builder, "-c", "{out}-cache", "--extra_options", "hf_token=false"), "out"
    )  # fmt: skip
    if coremltools:
        script = str(HERE / "coremltools_palettize.py")
        yield Entry("coremltools palette, a LUT a tensor", (script, model, "{out}.safetensors"), "out.safetensors")
        grouped = (script, model, "{out}.safetensors", "--group", "16")
        yield Entry("coremltools palette, a LUT for 16 rows", grouped, "out.safetensors")


def satchel(scheme: str, effort: str, model: str) -> Entry:
    """`satchel export` without validation."""
    name = "Satchel --weights source" if scheme == "source" else f"Satchel {scheme}, {effort}"
    command = ("-m", "satchel", "export", model, "-d", SATCHEL[scheme], "--weights", scheme, "--effort", effort)
    return Entry(name, (*command, "-o", "{out}", "--overwrite", "--no-validate"), "out/*.satchel")


def make(entry: Entry, folder: Path) -> Path | None:
    """Runs an entry unless it was run; returns what it wrote, or None if it failed."""
    place = folder / entry.slug
    place.mkdir(parents=True, exist_ok=True)
    if not (place / COST).exists():
        print(f"... {entry.name}", file=sys.stderr, flush=True)
        command = [sys.executable, *(part.format(out=place / "out") for part in entry.command)]
        try:
            cost = measure(command, place / "log")
        except subprocess.CalledProcessError as error:
            print(f"{entry.name} failed: {error.stderr[-500:]}", file=sys.stderr, flush=True)
            return None
        found = {"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb}
        (place / COST).write_text(json.dumps({key: round(value, 1) for key, value in found.items()}))
    return next(place.glob(entry.artifact))


def prepare(model: str, folder: Path) -> tuple[Path | None, Path]:
    """The model's weights in fp32, as GGUF if it is a GGUF file, and as a Hugging Face folder."""
    given = Path(model)
    if given.is_dir():
        return None, given
    gguf, plain = folder / "f32.gguf", folder / "fp32"
    if not gguf.exists():
        where = "import sys; from satchel.export.source import resolve; print(resolve(sys.argv[1]).path)"
        path = measure([sys.executable, "-c", where, model], folder / "log").output.strip()
        measure([sys.executable, str(HERE / "gguf_quantize.py"), path, "F32", str(gguf)], folder / "log")
    if not (plain / "config.json").exists():
        measure([sys.executable, str(HERE / "hf_folder.py"), str(plain)], folder / "log")
    return gguf, plain


def judged(model: str, artifacts: dict[str, Path], folder: Path, tokens: int) -> dict[str, Any]:
    """Name -> figures, by quality.py in a process of its own."""
    named = [f"{name}={path}" for name, path in artifacts.items()]
    command = [sys.executable, str(HERE / "quality.py"), model, *named, "--by-weights", "--cache", str(folder)]
    baseline = BASELINE if BASELINE in artifacts else next(iter(artifacts))
    output = measure([*command, "--tokens", str(tokens), "--baseline", baseline], folder / "quality.log").output
    return dict(json.loads(output))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown; the smallest KL first."""
    lines = [
        "| scheme | bits a weight (linears alone) | KL, both texts | documentation | prose | more than the palette "
        "| top-1 | perplexity | seconds | CPU seconds | peak memory |", "|" + "---|" * 11,
    ]  # fmt: skip
    for name, f in sorted(found.items(), key=lambda item: item[1]["both"]["kl"]):
        both, kinds = f["both"], [f"{f[kind]['kl']:.5f}" for kind in ("documentation", "prose")]
        more = "" if name == BASELINE else f"{both['kl_more']:+.5f} +- {both['kl_more_se']:.5f}"
        cells = [
            name, f"{f['bits']:.2f} ({f['linear_bits']:.2f})", f"{both['kl']:.5f} +- {both['kl_se']:.5f}", *kinds, more,
            f"{both['top1']:.1%}", f"{both['perplexity']:.2f}", f"{f['seconds']:.0f}", f"{f['cpu_seconds']:.0f}",
            f"{f['peak_mb']:,.0f} MB",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(model: str, folder: Path, efforts: list[str], coremltools: bool, tokens: int) -> dict[str, dict[str, Any]]:
    """Everything; name -> cost, size and figures."""
    gguf, plain = prepare(model, folder)
    made = {entry: make(entry, folder) for entry in entries(model, gguf, plain, efforts, coremltools)}
    artifacts = {entry.name: path for entry, path in made.items() if path}
    costs = {entry.name: json.loads((folder / entry.slug / COST).read_text()) for entry, path in made.items() if path}
    figures = judged(model, artifacts, folder, tokens)
    return {name: costs[name] | figures[name] for name in artifacts}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--high", action="store_true")
    parser.add_argument("--coremltools", action="store_true")
    parser.add_argument("--tokens", type=int, default=2560)
    parser.add_argument("--keep", type=Path, help="work here and leave everything")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="satchel-compare-"))
    folder.mkdir(parents=True, exist_ok=True)
    efforts = ["low", "normal", *(["high"] if options.high else [])]
    try:
        found = run(options.model, folder, efforts, options.coremltools, options.tokens)
        (folder / "compare.json").write_text(json.dumps(found, indent=1) + "\n")
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(found))
    if options.plot:
        from quality_plot import svg

        options.plot.write_text(svg(options.model, found), encoding="utf-8")


if __name__ == "__main__":
    main()
