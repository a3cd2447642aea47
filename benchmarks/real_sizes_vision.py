"""Exports a model that sees of published shapes with random weights: seconds, peak memory, sizes, and one picture seen.

usage: real_sizes_vision.py [--format F]... [--folder DIR] [--keep] [--max-memory SIZE]

The model is Phi-1.5 behind CLIP ViT-L/14 at 336 x 336 pixels and LLaVA's projector of two linears, made as
random_checkpoint.py makes others. Each format is exported in a process of its own, whose peak memory the operating
system counts. Then a further process shows the bundle its golden picture: the features are held against transformers'
with the same weights; and the first prompt with the picture is read, where that does not take long. Prints a line of
JSON for each format; docs/vision.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import measure  # this process stays small on purpose: a child's peak begins at its parent's
from published_shapes import SHAPES, Config

DEVICES = {"coreml": "iphone-15-pro", "onnx": "pixel-9", "executorch": "pixel-9"}
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}, "resample": 3,
    "crop_size": {"height": 336, "width": 336}, "do_center_crop": True, "do_resize": True, "do_rescale": True,
    "do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


def write(folder: Path) -> None:
    """Writes the checkpoint, a shard in memory at a time; its config.json comes last."""
    from random_checkpoint import write_tokenizer  # imports torch
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    text = {**SHAPES["phi-1.5"], "bos_token_id": 0, "eos_token_id": 1}
    config = {
        "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": text,
        "vision_config": CLIP, "image_token_index": tokenizer.token_to_id("<image>"), "torch_dtype": "bfloat16",
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu",
    }  # fmt: skip
    _write_weights(config, folder)
    (folder / "config.json").write_text(json.dumps(config))


def _write_weights(config: Config, folder: Path) -> None:
    import torch
    from random_checkpoint import shards
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    given = {k: v for k, v in config.items() if k != "model_type"}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("llava", **given))
    parts, where = list(shards({n: tuple(p.shape) for n, p in model.named_parameters()})), {}
    for number, shard in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: _made(name, shape) for name, shape in shard.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def _made(name: str, shape: tuple[int, ...]) -> Any:
    """Values; a convolution as the matrix that it is."""
    from random_checkpoint import made

    flat = shape if len(shape) < 3 else (shape[0], math.prod(shape[1:]))
    return made(name, flat, SHAPES["phi-1.5"]["num_hidden_layers"]).reshape(shape)


def seen(bundle: Path) -> dict[str, Any]:
    """Shows a bundle its golden picture."""
    from satchel.runtime.backends import load_backend
    from satchel.runtime.bundle import open_bundle
    from satchel.runtime.pictures import show
    from satchel.runtime.replay_vision import golden_prepared, vision_figures

    opened = open_bundle(bundle)
    entry, golden = opened.manifest.entry, opened.golden
    options = {"max_memory": 1_000_000_000} if entry.format == "coreml" else {}
    start = time.perf_counter()
    backend = load_backend(opened.folder, entry, **options)
    picture = golden_prepared(golden.vision, entry.vision.images)
    loaded = time.perf_counter()
    found = {"load_seconds": round(loaded - start, 1)}
    figures = vision_figures(backend, golden.vision, picture)["weights"]
    found |= {k: float(f"{v:.3g}") for k, v in figures.items()}
    found["picture_seconds"] = round(time.perf_counter() - loaded, 1)
    if entry.format != "coreml":
        show(backend, [picture])
        prompt, begin = golden.prompts[0], time.perf_counter()
        logits = backend.prefill(prompt.ids)
        found["prompt_seconds"] = round(time.perf_counter() - begin, 1)
        found |= {"prompt_ids": len(prompt.ids), "first_id_agrees": int(logits.argmax()) == prompt.continuation[0]}
    return found


def main() -> None:
    """Prints a line for each format."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--format", action="append", choices=tuple(DEVICES), default=[])
    given.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    given.add_argument("--keep", action="store_true", help="keep checkpoint, bundles and work")
    given.add_argument("--max-memory", default="2GB")
    given.add_argument("--seen", type=Path, help=argparse.SUPPRESS)
    given.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.seen or options.write:
        print(json.dumps(seen(options.seen) if options.seen else write(options.write)))
        return
    base = options.folder or Path(tempfile.mkdtemp(prefix="real-sizes-vision-"))
    base.mkdir(parents=True, exist_ok=True)
    own, checkpoint = [sys.executable, __file__], base / "llava-phi-1.5"
    if not (checkpoint / "config.json").exists():
        measure([*own, "--write", str(checkpoint)], base / "make.log")
    for form in options.format or list(DEVICES):
        command = [
            sys.executable, "-m", "satchel", "export", str(checkpoint), "--device", DEVICES[form], "--format", form,
            "--effort", "low", "--context", "1024", "--max-memory", options.max_memory, "--work", str(base / "work"),
            "--output", str(base / form), "--overwrite", "--no-validate", "--json",
        ]  # fmt: skip
        cost = measure(command, base / f"{form}.log")
        (bundle,) = json.loads(cost.output)["bundles"]
        step = measure([*own, "--seen", bundle["path"]], base / f"{form}-seen.log")
        row = {
            "format": form, "parameters": bundle["parameters"], "weights": bundle["weights"],
            "seconds": round(cost.seconds), "cpu_seconds": round(cost.cpu_seconds), "peak_mb": round(cost.peak_mb),
            "load": round(os.getloadavg()[0], 1), "bytes": bundle["bytes"],
            "below_fp32": round(100 - 25 * bundle["bytes"] / bundle["parameters"], 1),
            "seen": json.loads(step.output.splitlines()[-1]), "seen_peak_mb": round(step.peak_mb),
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        if not options.keep:
            shutil.rmtree(base / form)
    if not options.keep:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
