"""Trains benchmarks/tiny_phi: a small Phi whose weights were never quantized.  usage: train_phi.py [OUT]

Writes a Hugging Face folder (fp16 weights, configuration, tokenizer), the held-out texts, and training.json with what
was read, lost and said. One thread; products in bf16, everything else in fp32. The same texts, versions of torch and
processor give the same weights.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from phi_texts import documents, fetch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).parent / "tiny_phi"
END = "<|endoftext|>"
PROMPTS = ("The socket module", "And the king said unto", "CREATE TABLE")


@dataclass(frozen=True)
class Training:
    """How it is trained; a step sees `batch` sequences of `length` tokens, cut in halves for the first `short` steps,
    since attention over short ones takes half the time.
    """

    seed: int = 4
    vocabulary: int = 4096
    length: int = 512
    batch: int = 4
    steps: int = 3800
    short: int = 2800
    warm_up: int = 200
    rate: float = 3e-3
    least_rate: float = 1e-4
    decay: float = 0.1
    clip: float = 1.0


def shape(training: Training) -> transformers.PhiConfig:
    """3.8 million parameters; heads half rotated, as Phi-1.5's are."""
    return transformers.PhiConfig(
        vocab_size=training.vocabulary,
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=6,
        partial_rotary_factor=0.5,
        max_position_embeddings=training.length,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )


def train_tokenizer(texts: list[str], training: Training) -> Tokenizer:
    """Byte-level BPE; id 0 is END."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=training.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def stream(tokenizer: Tokenizer, texts: list[str], training: Training) -> np.ndarray:
    """Every text, shuffled, END after each, as sequences [n, length + 1] that overlap by one token."""
    order = np.random.default_rng(training.seed).permutation(len(texts))
    ids: list[int] = []
    for i in order:
        ids += [*tokenizer.encode(texts[i]).ids, 0]
    starts = range(0, len(ids) - training.length, training.length)
    return np.stack([np.array(ids[i : i + training.length + 1], np.int64) for i in starts])


def rate_at(step: int, training: Training) -> float:
    """Linear warm-up, then half a cosine."""
    if step < training.warm_up:
        return training.rate * (step + 1) / training.warm_up
    done = (step - training.warm_up) / (training.steps - training.warm_up)
    return training.least_rate + (training.rate - training.least_rate) * 0.5 * (1 + math.cos(math.pi * done))


def train(model: Any, sequences: np.ndarray, training: Training) -> list[float]:
    """AdamW over shuffled epochs; the training loss, each the mean of a hundred steps."""
    for layer in model.model.layers:
        layer.mlp.activation_fn = torch.nn.GELU(approximate="tanh")  # gelu_new in one kernel
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": training.decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    rng, order, losses = np.random.default_rng(training.seed), np.zeros(0, np.int64), []
    for step in range(training.steps):
        if len(order) < training.batch:
            order = rng.permutation(len(sequences))
        batch, order = order[: training.batch], order[training.batch :]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, training)
        ids = torch.from_numpy(sequences[batch])
        if step < training.short:
            half = training.length // 2
            ids = torch.cat((ids[:, : half + 1], ids[:, half:]))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"{step + 1} of {training.steps}: {np.mean(losses[-100:]):.4f}", flush=True)
    return [float(np.mean(losses[i : i + 100])) for i in range(0, len(losses), 100)]


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats a token; ids [batch, length + 1]."""
    logits = model(ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def judge(model: Any, tokenizer: Tokenizer, text: str, training: Training) -> dict[str, float]:
    """Loss on a held-out text in sequences of `length`."""
    ids = torch.tensor(tokenizer.encode(text).ids)
    pieces = [p for p in ids.split(training.length) if len(p) > 1]
    total = sum(loss_of(model, p[None]).item() * (len(p) - 1) for p in pieces)
    loss = total / sum(len(p) - 1 for p in pieces)
    bits = total / math.log(2) / len(text.encode())
    return {"tokens": len(ids), "loss": loss, "perplexity": math.exp(loss), "bits_a_byte": bits}


def say(model: Any, tokenizer: Tokenizer, prompt: str) -> str:
    """Sixty tokens after a prompt, sampled with a seed."""
    torch.manual_seed(0)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(ids, attention_mask=ids * 0 + 1, max_new_tokens=60, do_sample=True, temperature=0.7, top_k=40)
    return tokenizer.decode(out[0].tolist())


def main() -> None:
    """Fetches, trains, judges what was saved, and writes it down."""
    out, training, begun = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT, Training(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        packages = fetch(Path(folder))
        texts, held_out = documents(Path(folder))
    torch.manual_seed(training.seed)
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(texts, training)
    sequences = stream(tokenizer, texts, training)
    print(f"{len(texts)} texts, {sequences.shape[0]} sequences; {time.process_time() - begun:.0f} s", flush=True)
    model = transformers.PhiForCausalLM(shape(training))
    losses = train(model.train(), sequences, training)
    save(out, model.half(), tokenizer, held_out)
    model = transformers.PhiForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    report = {
        "packages": packages,
        "training": asdict(training),
        "parameters": model.num_parameters(),
        "training_tokens": sequences.shape[0] * training.length,
        "tokens_seen": training.steps * training.batch * training.length,
        "losses": [round(x, 4) for x in losses],
        "held_out": {kind: judge(model, tokenizer, text, training) for kind, text in held_out.items()},
        "samples": [say(model, tokenizer, prompt) for prompt in PROMPTS],
        "cpu_seconds": round(time.process_time() - begun),
    }
    (out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def save(out: Path, model: Any, tokenizer: Tokenizer, held_out: dict[str, str]) -> None:
    """The Hugging Face folder, and the texts to judge it on."""
    model.save_pretrained(out)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    fast.save_pretrained(out)
    for kind, text in held_out.items():
        (out / f"{kind}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
