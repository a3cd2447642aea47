"""What an export of a large model takes: seconds and peak memory, on a checkpoint of random weights.

usage: scale.py [SHAPE] [--layers N] [--folder DIR] [--keep] [-- OPTIONS OF satchel export]

The checkpoint (seeded, bfloat16, a shard a layer) is written into a temporary folder, and exported in a process of its
own; the operating system counts the rest. Mapped pages of files count as resident memory there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from measure import measure  # small on purpose: a child's peak begins at its parent's


@dataclass(frozen=True)
class Shape:
    """Of a decoder of the Llama architecture, untied."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int


SHAPES = {
    "phi-3-mini": Shape(32, 3072, 8192, 32, 32, 32064),  # 3.8B
    "phi-3-medium": Shape(40, 5120, 17920, 40, 10, 32064),  # 14B
    "wide-vocabulary": Shape(2, 3072, 8192, 24, 8, 200064),  # Phi-4-mini's embedding
    "small": Shape(4, 1024, 2816, 16, 8, 32064),
}
MAC = """title = "A Mac without an engine to please"
kind = "computer"
os = "macos"
os_version = 15
memory_gb = 32
app_memory_gb = 0
formats = ["coreml", "onnx"]

[chip]
title = "any"
isa = ["dotprod", "i8mm", "bf16", "fp16"]
bandwidth_gb_s = 100

[[chip.cores]]
count = 8
core = "any"
kind = "big"
"""
DEVICES = ("mac", "pixel-9")
OPTIONS = ["--effort", "low"]
WRITE = "import sys; sys.path.insert(0, sys.argv[1]); import scale; scale.write_checkpoint(*sys.argv[2:])"


def tensors(shape: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes, a shard at a time."""
    head = shape.hidden // shape.heads
    kv = shape.kv_heads * head
    yield {"model.embed_tokens.weight": (shape.vocab, shape.hidden)}
    for i in range(shape.layers):
        layer = {
            "input_layernorm": (shape.hidden,), "post_attention_layernorm": (shape.hidden,),
            "self_attn.q_proj": (shape.hidden, shape.hidden), "self_attn.k_proj": (kv, shape.hidden),
            "self_attn.v_proj": (kv, shape.hidden), "self_attn.o_proj": (shape.hidden, shape.hidden),
            "mlp.gate_proj": (shape.intermediate, shape.hidden), "mlp.up_proj": (shape.intermediate, shape.hidden),
            "mlp.down_proj": (shape.hidden, shape.intermediate),
        }  # fmt: skip
        yield {f"model.layers.{i}.{name}.weight": size for name, size in layer.items()}
    yield {"model.norm.weight": (shape.hidden,), "lm_head.weight": (shape.vocab, shape.hidden)}


def write_checkpoint(folder: str, shape: str) -> None:
    """A Hugging Face folder of random weights; `shape` is a Shape as JSON."""
    import torch
    from safetensors.torch import save_file

    wanted, random, out = Shape(**json.loads(shape)), torch.Generator().manual_seed(0), Path(folder)
    shards, where, total = list(tensors(wanted)), {}, 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        made = {
            n: torch.ones(s, dtype=torch.bfloat16)
            if len(s) == 1
            else torch.empty(s, dtype=torch.bfloat16).normal_(0, s[1] ** -0.5, generator=random)
            for n, s in shard.items()
        }
        save_file(made, out / name, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, name)
        total += sum(t.nbytes for t in made.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    (out / "config.json").write_text(json.dumps(_config(wanted)))
    _write_tokenizer(out)


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocab,
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "hidden_act": "silu",
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip


def _write_tokenizer(folder: Path) -> None:
    """Byte-level BPE, trained on the texts that ship with the calibration."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    texts = sorted(p for p in (files("satchel.export.calibration") / "text").iterdir() if p.name.endswith(".txt"))
    tokenizer.train_from_iterator([p.read_text(encoding="utf-8") for p in texts], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


def main() -> None:
    """Prints one row."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("shape", nargs="?", default="phi-3-mini", choices=SHAPES)
    given.add_argument("--layers", type=int, help="fewer layers than the shape has")
    given.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    given.add_argument("--keep", action="store_true", help="keep the checkpoint and the bundles")
    given.add_argument("--device", action="append", help="instead of a Mac (Core ML) and pixel-9 (ONNX)")
    ours, rest = given.parse_known_args()
    shape = SHAPES[ours.shape]
    if ours.layers:
        shape = Shape(**{**asdict(shape), "layers": ours.layers})
    folder = ours.folder or Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        print_row(ours.shape, shape, folder, ours.device or DEVICES, [r for r in rest if r != "--"] or OPTIONS)
    finally:
        if not ours.keep:
            shutil.rmtree(folder, ignore_errors=True)


def print_row(name: str, shape: Shape, folder: Path, devices: tuple[str, ...], options: list[str]) -> None:
    """Makes the checkpoint unless it is there, exports it, and prints what that took."""
    checkpoint, out = folder / "checkpoint", folder / "bundles"
    if not (checkpoint / "config.json").exists():
        checkpoint.mkdir(parents=True, exist_ok=True)
        start, here = time.perf_counter(), str(Path(__file__).parent)
        measure([sys.executable, "-c", WRITE, here, str(checkpoint), json.dumps(asdict(shape))], folder / "make.log")
        print(f"checkpoint made in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    (folder / "mac.toml").write_text(MAC)
    named = [arg for d in devices for arg in ("-d", str(folder / "mac.toml") if d == "mac" else d)]
    command = [sys.executable, "-m", "satchel", "export", str(checkpoint), *named, "-o", str(out), "--json"]
    cost = measure([*command, "--no-validate", "--overwrite", *options], folder / "export.log")
    sizes = {b["format"]: f"{b['bytes'] / 1e6:,.0f} MB" for b in json.loads(cost.output)["bundles"]}
    said = ", ".join(f"{form} {size}" for form, size in sizes.items())
    print("| shape | layers | seconds | CPU seconds | peak memory | bundles |\n|---|---|---|---|---|---|")
    print(
        f"| {name} | {shape.layers} | {cost.seconds:.0f} | {cost.cpu_seconds:.0f} | {cost.peak_mb:,.0f} MB | {said} |"
    )


if __name__ == "__main__":
    main()
