"""A Hugging Face folder of random weights in a published model's shape.  usage: random_checkpoint.py SHAPE FOLDER

bfloat16, a shard a layer, one in memory at a time. Names and shapes are transformers' own, from the model on its meta
device; OpenELM's, which transformers lacks, are those of its checkpoints. Every tensor has a seed of its own, made from
its name. The scale is a trained model's: products keep the size of their inputs, what is added to the residual stream
is smaller by the square root of twice the number of layers, rows of a matrix differ in size, and logits are spread by
about 3, so that the likeliest ids stand out.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from published_shapes import SHAPES, Config, divisible
from safetensors.torch import save_file

INTO_RESIDUAL = ("o_proj", "dense", "down_proj", "fc2", "out_proj", "proj_2")
LOGITS = 3.0
"""Their standard deviation, roughly."""
POOL = 15_485_863
"""Normal values that are drawn."""


def names_and_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint."""
    if config["model_type"] == "openelm":
        return _openelm(config)
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {k: v for k, v in config.items() if k != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **given))
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def _openelm(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, dim, step = config["model_dim"], config["head_dim"], config["ffn_dim_divisor"]
    shapes: dict[str, tuple[int, ...]] = {"token_embeddings": (config["vocab_size"], hidden)}
    for i in range(config["num_transformer_layers"]):
        q, kv = config["num_query_heads"][i] * dim, config["num_kv_heads"][i] * dim
        width = divisible(config["ffn_multipliers"][i] * hidden, step)
        layer = {
            "attn_norm": (hidden,), "attn.qkv_proj": (q + 2 * kv, hidden), "attn.q_norm": (dim,), "attn.k_norm": (dim,),
            "attn.out_proj": (hidden, q), "ffn_norm": (hidden,), "ffn.proj_1": (2 * width, hidden),
            "ffn.proj_2": (hidden, width),
        }  # fmt: skip
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["norm"] = (hidden,)
    return {f"transformer.{name}.weight": shape for name, shape in shapes.items()}


def made(name: str, shape: tuple[int, ...], layers: int) -> torch.Tensor:
    """A tensor's values, bfloat16."""
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if len(shape) == 1:
        values, bias = torch.empty(shape), name.endswith("bias")
        drawn = values.normal_(0, 0.1, generator=random) if bias else values.uniform_(0.5, 1.5, generator=random)
        return drawn.to(torch.bfloat16)
    scale = shape[1] ** -0.5
    if name.split(".")[-2] in INTO_RESIDUAL:
        scale *= (2 * layers) ** -0.5
    if name in ("lm_head.weight", "transformer.token_embeddings.weight"):
        scale *= LOGITS
    rows = torch.empty(shape[0], 1).log_normal_(0, 0.3, generator=random) * scale
    out, start = torch.empty(shape, dtype=torch.bfloat16), int(torch.randint(POOL, (1,), generator=random))
    for values in out.view(-1).split(POOL):
        begin = min(len(values), POOL - start)
        values[:begin] = pool()[start : start + begin]
        values[begin:] = pool()[: len(values) - begin]
    return out.mul_(rows.to(torch.bfloat16))


@cache
def pool() -> torch.Tensor:
    """Normal values from which every matrix takes its own, from a place of its own on: drawing all takes many minutes.

    Their number is prime, so that a matrix that goes round has them at other columns and under other scales of rows.
    """
    return torch.empty(POOL).normal_(0, 1, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def shards(names: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """A layer's tensors, or one that is outside of the layers, at a time."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in names.items():
        layer = re.search(r"layers\.\d+\.", name)
        found.setdefault(layer.group() if layer else name, {})[name] = shape
    yield from found.values()


def write(config: Config, folder: Path) -> None:
    """Writes the folder, which is made if need be; its config.json comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = config.get("num_hidden_layers") or config["num_transformer_layers"]
    parts, where, total = list(shards(names_and_shapes(config))), {}, 0
    for number, shard in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: made(name, shape, layers) for name, shape in shard.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
        total += sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", **config}))


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE of some 4,000 ids, trained on the texts that ship with the calibration."""
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


if __name__ == "__main__":
    write(SHAPES[sys.argv[1]], Path(sys.argv[2]))
