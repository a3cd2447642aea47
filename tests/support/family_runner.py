"""One check for every family: a tiny random model of transformers' own class, in every op set.

A case is a configuration. Its model is saved as a checkpoint by transformers, read by us as any other, written in every
format without compression, and run over prompts of several lengths and token by token behind them. All logits must be
those of transformers' one pass over the whole sequence, with its eager attention, in fp32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_models
import pytest
import tiny_openelm
import tiny_phi3small
import torch
from coreml_caller import INFO, Caller, coreml_plan
from transformers import AutoConfig, AutoModelForCausalLM

from satchel.devices.plan import Choice, Plan
from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.registry import load_family
from satchel.export.formats import coreml, executorch, onnx
from satchel.export.ops.torch import TorchDecoder
from satchel.export.reference import Reference
from satchel.runtime.backends.executorch import ExecutorchBackend
from satchel.runtime.backends.onnx import OnnxBackend

TOLERANCE = 1e-4
FLOOR = -100.0
"""Below it lie only the logits of ids that are never said, which fp32 rounds to 1e-3."""
CONTEXT = 40
TOKENS = 30
PROMPTS = (3, 19)
"""Lengths of prompts; the rest of the sequence goes token by token behind the last."""
LENGTHS = (5, 14)
"""Of two prompts in a batch."""
PREFILL = 8
TINY = {
    "vocab_size": 160, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}


@dataclass(frozen=True)
class Case:
    """A variant of a family.

    Attributes:
        options: of the configuration, over TINY, model_type among them.
        context: tokens that the exported cache holds; the sequence is as long at the most.
    """

    options: dict[str, Any] = field(hash=False)
    context: int = CONTEXT

    def json(self) -> str:
        """The options, as a key."""
        return json.dumps(self.options, sort_keys=True)


def configuration(case: Case) -> dict[str, Any]:
    """As config.json of the case's checkpoint has it."""
    writer = OTHERS.get(case.options["model_type"])
    if writer:
        return dict(writer.CONFIG | case.options)
    return dict(json.loads(AutoConfig.for_model(**(TINY | case.options)).to_json_string()))


@dataclass(frozen=True)
class Made:
    """A model, and what it says.

    Attributes:
        folder: its checkpoint.
        ids: int64 [2, tokens].
        logits: float32 [2, tokens, vocab], by transformers.
        config, weights: as we read the checkpoint.
    """

    folder: Path
    ids: np.ndarray
    logits: np.ndarray
    config: DecoderConfig
    weights: Uncompressed


def random_model(options: dict[str, Any]) -> Any:
    """A model in which every weight matters, gains and biases too."""
    torch.manual_seed(0)
    given = AutoConfig.for_model(**(TINY | options))
    model = AutoModelForCausalLM.from_config(given, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
            elif parameter.ndim == 1:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5))
    return model


OTHERS = {"openelm": tiny_openelm, "phi3small": tiny_phi3small}

FOLDERS: list[TemporaryDirectory[str]] = []


@lru_cache
def make(options: str, context: int) -> Made:
    """The model of a case; made once for all op sets."""
    FOLDERS.append(TemporaryDirectory())
    folder, model = Path(FOLDERS[-1].name), _saved(Path(FOLDERS[-1].name), json.loads(options))
    ids = np.random.default_rng(0).integers(3, model.config.vocab_size, (2, min(TOKENS, context)))
    with torch.no_grad():
        logits = model(torch.from_numpy(ids), use_cache=False).logits.numpy()
    config, tensors = load_family(open_checkpoint(folder))
    return Made(folder, ids, np.maximum(logits, FLOOR), config.at_context(context), Uncompressed(tensors))


def _saved(folder: Path, options: dict[str, Any]) -> Any:
    if writer := OTHERS.get(options["model_type"]):  # not in transformers: see their files in families/
        writer.save(folder, options)
        return Reference(folder).model
    model = random_model(options)
    model.save_pretrained(folder)
    return model


Logits = Iterator[tuple[slice, np.ndarray]]
"""Positions of the first sequence, and what an op set says there."""


def by_torch(made: Made, context: int, folder: Path) -> Logits:
    """Eagerly, also in a batch; and the reference, with prompts of different lengths in a batch."""
    model, ids = TorchDecoder(made.config, made.weights), made.ids[0].tolist()
    batch = np.maximum(model.batch_logits(torch.from_numpy(made.ids)).numpy(), FLOOR)
    np.testing.assert_allclose(batch, made.logits, atol=TOLERANCE, rtol=0)
    prompts = [row[:length].tolist() for row, length in zip(made.ids, LENGTHS, strict=True)]
    with Reference(made.folder, context=context) as reference:
        for row, got in zip(made.logits, reference.batch_logits(prompts), strict=True):
            np.testing.assert_allclose(np.maximum(got, FLOOR), row[: len(got)], atol=TOLERANCE, rtol=0)
    yield from _stepped(model, ids)


def by_onnx(made: Made, context: int, folder: Path) -> Logits:
    """In onnxruntime, also prompts of different lengths in a batch, padded at their ends, and a token behind each."""
    import onnxruntime

    entry = onnx.write(folder, made.weights, made.config, onnx_models.plan(context), INFO)
    yield from _stepped(OnnxBackend(folder, entry), made.ids[0].tolist())
    session, longest, lengths = onnxruntime.InferenceSession(folder / entry.path), max(LENGTHS), np.array(LENGTHS)
    seen = np.arange(longest) < lengths[:, None]
    batch = {"input_ids": np.where(seen, made.ids[:, :longest], 5), "attention_mask": seen.astype(np.int64)}
    for spec in entry.inputs[2:]:
        batch[spec.name] = np.zeros((2, int(spec.shape[1]), 0, int(spec.shape[3])), np.float32)
    _, *caches = session.run(None, batch)
    batch = {spec.name: cache for spec, cache in zip(entry.inputs[2:], caches, strict=True)}
    batch["input_ids"] = made.ids[[0, 1], lengths][:, None]
    batch["attention_mask"] = (np.arange(longest + 1) <= lengths[:, None]).astype(np.int64)
    got = session.run(["logits"], batch)[0]
    np.testing.assert_allclose(np.maximum(got[:, 0], FLOOR), made.logits[[0, 1], lengths], atol=TOLERANCE, rtol=0)


def by_executorch(made: Made, context: int, folder: Path) -> Logits:
    """In ExecuTorch, prompts in calls of 8 tokens."""
    choices = (Choice("target", "xnnpack", "", ""),)
    plan = Plan("a device", "executorch", context, PREFILL, choices)
    entry = executorch.write(folder, made.weights, made.config, plan, INFO)
    yield from _stepped(ExecutorchBackend(folder, entry), made.ids[0].tolist())


def by_coreml(**roles: str) -> Callable[[Made, int, Path], Logits]:
    """In our interpreter of MIL, prompts in calls of 8 tokens."""

    def run(made: Made, context: int, folder: Path) -> Logits:
        plan = coreml_plan(context=context, prefill=PREFILL, **roles)
        caller = Caller(folder, coreml.write(folder, made.weights, made.config, plan, INFO))
        prompt = min(PROMPTS[-1], len(made.ids[0]) - 2)
        yield slice(0, prompt), caller.prefill(made.ids[0][:prompt])
        yield slice(prompt, None), caller.decode(made.ids[0][prompt:])

    return run


OP_SETS: dict[str, Callable[[Made, int, Path], Logits]] = {
    "torch": by_torch,
    "onnx": by_onnx,
    "executorch": by_executorch,
    "coreml-engine": by_coreml(),
    "coreml-gpu": by_coreml(layout="plain", attention="fused_sdpa"),
    "coreml-plain": by_coreml(layout="plain"),
}


def check(case: Case, op_set: str, folder: Path) -> None:
    """Every logit of a case in an op set."""
    made = make(case.json(), case.context)
    assert made.logits.max() > 1
    for places, got in OP_SETS[op_set](made, case.context, folder):
        np.testing.assert_allclose(np.maximum(got, FLOOR), made.logits[0][places], atol=TOLERANCE, rtol=0)


def in_every_op_set(cases: dict[str, Case]) -> pytest.MarkDecorator:
    """Parametrizes a test by (case, op_set).

    The first case, which has as many options at once as there may be, is for every run, as are all in eager torch; the
    others are for `pytest -m families`.
    """
    first = next(iter(cases))
    slow = pytest.mark.families
    return pytest.mark.parametrize(
        ("case", "op_set"),
        [
            pytest.param(case, op_set, id=f"{name}-{op_set}", marks=() if op_set == "torch" or name == first else slow)
            for name, case in cases.items()
            for op_set in OP_SETS
        ],
    )


def _stepped(model: Any, ids: list[int]) -> Logits:
    for prompt in PROMPTS:
        if prompt < len(ids):
            model.reset()
            yield slice(prompt - 1, prompt), model.prefill(ids[:prompt])[None]
            last = prompt
    for place in range(last, len(ids)):
        yield slice(place, place + 1), model.step(ids[place])[None]
