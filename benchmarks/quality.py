"""KL divergence to the fp32 reference on held-out text, of bundles and of what other programs wrote.

usage: python benchmarks/quality.py MODEL [NAME=]ARTIFACT... [--by-weights [--cache FOLDER] [--baseline NAME]]

Prints one JSON object, name -> figures: mean KL with its standard error over blocks of 64 tokens, top-1 agreement,
perplexity. An ARTIFACT is run by its own runtime: a bundle, or a folder of onnxruntime-genai's builder.

--by-weights instead reads its matrices back and runs them in the reference, for each kind of text and both, with bits a
weight, and by how much its KL is more than the baseline's (the first's). A bundle's program does nothing else than the
reference does with the same weights, which is what `satchel validate` shows. ARTIFACT may then also be a GGUF file, a
folder of compressed matrices from `--work`, or a safetensors file as coremltools_palettize.py writes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import Size, gguf_size
from artifacts import load as load_weights
from heldout import Block, blocks
from judging import Judged, Logits, by_kind, judge, reference_logits

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.reference import Reference
from satchel.export.source import resolve
from satchel.export.tokenizer import read_tokenizer
from satchel.runtime.session import load


def genai_logits(folder: Path) -> Logits:
    """A model by onnxruntime-genai's builder, run whole by onnxruntime with an empty cache."""
    import onnxruntime as ort

    shape = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, shape["num_key_value_heads"], 0, shape["head_size"]), np.float32)
    past = {i.name: empty for i in session.get_inputs() if i.name.startswith("past_key_values")}

    def run(ids: list[int]) -> np.ndarray:
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64), **past}
        return np.asarray(session.run(["logits"], feeds)[0][0])

    return run


Named = tuple[str, Path]
"""An artifact, and what it is to be called; "" leaves that to the artifact."""


def candidates(artifacts: list[Named]) -> Iterator[tuple[str, Logits]]:
    """Each model by name, loaded when its turn comes."""
    for name, path in artifacts:
        if (path / "genai_config.json").exists():
            yield name or "onnxruntime-genai int4", genai_logits(path)
            continue
        with load(path) as session:
            yield name or f"{session.info['format']} {session.info['weights']}", session.logits


class Judge:
    """The reference's answers to the held-out text, and artifacts held against them by their weights.

    Args:
        model: as `satchel export` takes it; a folder's own held-out texts are taken where it has them.
        tokens: altogether, half of each kind.
        cache: a folder for the reference's logits and for what was judged before.
    """

    def __init__(self, model: str, tokens: int, cache: Path | None) -> None:
        self._source, self._texts, self._cache = resolve(model), texts_of(model, tokens), cache
        self._reference = Reference(self._source)
        self._wanted = reference_logits(self._reference.logits, self._texts, cache)

    def judge(self, path: Path) -> tuple[Judged, Size]:
        """An artifact's losses and size, from the cache where they lie there."""
        if self._cache is None:
            return self._judge(path)
        key = json.dumps([str(path.resolve()), path.stat().st_mtime_ns, [block.ids for block in self._texts]])
        place = self._cache / f"judged-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        if not place.with_suffix(".json").exists():
            judged, size = self._judge(path)
            judged.save(place.with_suffix(".npz"))
            place.with_suffix(".json").write_text(json.dumps(asdict(size)))
        return Judged.read(place.with_suffix(".npz")), Size(**json.loads(place.with_suffix(".json").read_text()))

    def _judge(self, path: Path) -> tuple[Judged, Size]:
        # transformers itself loads GGUF files, since it knows all their kinds of codes.
        if path.suffix == ".gguf":
            with Reference(path) as other:
                return judge(other.logits, self._wanted, self._texts), gguf_size(path)
        size = load_weights(self._reference, path)
        return judge(self._reference.logits, self._wanted, self._texts), size


def texts_of(model: str, tokens: int) -> list[Block]:
    """The held-out text that a model is judged on."""
    source = resolve(model)
    checkpoint = open_checkpoint(source.path)
    config, _ = load_family(checkpoint)
    tokenizer = read_tokenizer(checkpoint, config)
    return blocks(tokenizer.encode, tokens, folder=source.path if source.path.is_dir() else None)


def by_weights(model: str, artifacts: list[Named], tokens: int, cache: Path | None, baseline: str) -> Any:
    """Name -> size and figures of each kind of text."""
    found = Judge(model, tokens, cache)
    judged = {name or str(path): found.judge(path) for name, path in artifacts}
    base = judged[baseline or next(iter(judged))][0]
    return {name: {"bits": size.bits, "linear_bits": size.linear_bits} | by_kind(j, base) for name, (j, size) in
            judged.items()}  # fmt: skip


def by_runtimes(model: str, artifacts: list[Named], tokens: int) -> Any:
    """Name -> figures over all tokens."""
    texts = texts_of(model, tokens)
    with Reference(resolve(model)) as reference:
        wanted = reference_logits(reference.logits, texts, None)
    return {name: judge(run, wanted, texts).figures() for name, run in candidates(artifacts)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--tokens", type=int, default=2560)
    parser.add_argument("--by-weights", action="store_true")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--baseline", default="")
    options = parser.parse_args()
    pairs = [given.partition("=") if "=" in given else ("", "", given) for given in options.artifacts]
    artifacts = [(name, Path(path)) for name, _, path in pairs]
    if options.by_weights:
        found = by_weights(options.model, artifacts, options.tokens, options.cache, options.baseline)
    else:
        found = by_runtimes(options.model, artifacts, options.tokens)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
