"""KL divergence to the fp32 reference on held-out text, of bundles and of a model by onnxruntime-genai's builder.

usage: python benchmarks/quality.py MODEL [--tokens N] [--genai FOLDER] BUNDLE...

Prints one JSON object: name -> mean KL with its standard error over blocks of 64 tokens, top-1 agreement, perplexity.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from heldout import blocks

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.reference import Reference
from satchel.export.source import resolve
from satchel.export.tokenizer import read_tokenizer
from satchel.runtime.metrics import kl, log_softmax, standard_error
from satchel.runtime.session import load

Logits = Callable[[list[int]], np.ndarray]


def figures(reference: list[np.ndarray], texts: list[list[int]], logits: Logits) -> dict[str, float]:
    """What a model loses against the reference, over all blocks."""
    divergence, top, loss = [], [], []
    for ids, wanted in zip(texts, reference, strict=True):
        got = logits(ids)
        divergence.append(kl(wanted, got))
        top.append(wanted.argmax(1) == got.argmax(1))
        loss.append(-log_softmax(got[:-1])[np.arange(len(ids) - 1), ids[1:]])
    values = np.concatenate(divergence)
    return {
        "kl": round(float(values.mean()), 4),
        "kl_se": round(standard_error(values, 64), 4),
        "top1": round(float(np.concatenate(top).mean()), 4),
        "perplexity": round(float(np.exp(np.concatenate(loss).mean())), 3),
    }


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


def candidates(bundles: list[Path], genai: Path | None) -> Iterator[tuple[str, Logits]]:
    """Each model by name, loaded when its turn comes."""
    for path in bundles:
        with load(path) as session:
            yield f"{session.info['format']} {session.info['weights']}", session.logits
    if genai:
        yield "onnxruntime-genai int4", genai_logits(genai)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--tokens", type=int, default=2560)
    parser.add_argument("--genai", type=Path)
    options = parser.parse_args()
    source = resolve(options.model)
    checkpoint = open_checkpoint(source.path)
    config, _ = load_family(checkpoint)
    texts = blocks(read_tokenizer(checkpoint, config).encode, options.tokens)
    with Reference(source) as reference:
        wanted = [reference.logits(ids) for ids in texts]
    print(json.dumps({name: figures(wanted, texts, run) for name, run in candidates(options.bundles, options.genai)}))


if __name__ == "__main__":
    main()
