"""Bundles whose model is a few lines of numpy, so that all that surrounds a model file is tested without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from satchel.devices.plan import Choice, Plan
from satchel.export.bundle import BundleWriter
from satchel.runtime.errors import UsageError
from satchel.runtime.golden import Golden, GoldenPrompt, GoldenSet
from satchel.runtime.manifest import (
    GenerationDefaults,
    Manifest,
    ModelEntry,
    ModelInfo,
    TensorSpec,
    TokenRules,
    WeightSchemes,
)

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 256 + len(CONTROLS)
START, END = 257, 258
CONTEXT = 96
TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, and three control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(c, special=True, normalized=False) for c in CONTROLS])
    return tokenizer


class NumpyBackend:
    """A recurrent toy: the state is a decaying sum of embeddings. model.npy holds the seed.

    Options are faults to be found: noise on the logits, a prefill that forgets the last token's place, NaN.
    """

    calls: list[tuple[str, int]] = []  # noqa: RUF012 (shared on purpose: what the last backend was asked)

    def __init__(self, folder: Path, entry: ModelEntry, fault: str = "", size: float = 0.0) -> None:
        seed = int(np.load(folder / entry.path)[0])
        random = np.random.default_rng(seed)
        self._embed = random.normal(size=(VOCAB, 16))
        self._head = random.normal(size=(16, VOCAB))
        self._fault, self._size, self._context = fault, size, entry.context_length
        self._noise = np.random.default_rng(seed + 1)
        type(self).calls = []
        self.reset()

    def reset(self) -> None:
        self.calls.append(("reset", 0))
        self.position = 0
        self._state = np.zeros(16)

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        self.calls.append(("prefill", len(ids)))
        logits = [self._append(i) for i in ids][-1]
        if self._fault == "prefill":
            self._state = self._state * (1 - self._size)
        return logits

    def step(self, token: int) -> np.ndarray:
        self.calls.append(("step", 1))
        if self._fault == "decode":
            self._state = self._state * (1 - self._size)
        return self._append(token)

    def _append(self, token: int) -> np.ndarray:
        if self.position >= self._context:
            raise UsageError("the cache is full")
        self.position += 1
        self._state = 0.6 * self._state + self._embed[token]
        logits = self._state @ self._head
        if self._fault == "noise":
            logits = logits + self._size * self._noise.normal(size=VOCAB)
        return (logits * (np.nan if self._fault == "nan" else 1)).astype(np.float32)


def manifest(**changes: object) -> Manifest:
    """A manifest without files."""
    values: dict[str, object] = {
        "model": ModelInfo("maker/toy", "llama", "maker", "apache-2.0", "Terms.\n", "safetensors, sha256 00", 1234),
        "plan": Plan("bench", "onnx", CONTEXT, 0, (Choice("weights", "palette", "smallest", "rule 1", ("int4",)),)),
        "entry": ModelEntry(
            "onnx", "model.npy", CONTEXT, 0,
            (TensorSpec("input_ids", (1, "sequence"), "int64"),), (TensorSpec("logits", (1, 1, VOCAB), "float32"),),
            options={"minimum_onnxruntime": "1.23"},
        ),
        "weights": WeightSchemes("palette", {"embed_tokens": "int8", "layers.0.mlp.up_proj": "palette4"}),
        "tokens": TokenRules(VOCAB, None, False, (END,)),
        "generation": GenerationDefaults(max_new_tokens=12),
        "tools": {"satchel": "0.1.0"},
    }  # fmt: skip
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]


def golden_of(backend: NumpyBackend, prompts: Sequence[str | Sequence[int]], steps: int = 32) -> Golden:
    """What this very model says; "weights" is the same as "reference"."""
    tokenizer = byte_tokenizer()
    found, forced, greedy = [], [], []
    for prompt in prompts:
        ids = tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        backend.reset()
        rows, answer = [backend.step(i) for i in ids], []
        for _ in range(steps):
            answer.append(int(np.argmax(rows[-1])))
            rows.append(backend.step(answer[-1]))
        found.append(GoldenPrompt(prompt if isinstance(prompt, str) else None, tuple(ids), tuple(answer)))
        forced.append(np.stack(rows[:-1]))
        greedy.append(np.stack(rows[len(ids) - 1 : -1]))
    values = GoldenSet.from_logits(forced, greedy)
    return Golden(VOCAB, tuple(found), {"reference": values, "weights": values})


def write_bundle(
    target: Path, seed: int = 0, tokenizer: bool = True, template: str = TEMPLATE, **changes: object
) -> Path:
    """A whole bundle at `target`."""
    with BundleWriter(target) as writer:
        np.save(writer.folder / "model.npy", np.array([seed]))
        if tokenizer:
            (writer.folder / "tokenizer.json").write_text(byte_tokenizer().to_str())
            config = {"bos_token": CONTROLS[1], "eos_token": {"content": CONTROLS[2]}, "model_max_length": 10**30}
            (writer.folder / "tokenizer_config.json").write_text(json.dumps(config))
            (writer.folder / "chat_template.jinja").write_text(template)
        filled = manifest(**changes)
        backend = NumpyBackend(writer.folder, filled.entry)
        golden_of(backend, ["What is it?", "Once upon a time", [5, 6, 7]]).write(writer.folder / "golden")
        return writer.finish(filled)
