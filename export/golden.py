"""Fixed prompts, run through the reference: the golden data of a bundle (runtime/golden.py says what it holds)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.progress import Progress, silent
from satchel.export.reference import Reference
from satchel.export.tokenizer import BundleTokenizer
from satchel.runtime.errors import CheckpointError, UsageError
from satchel.runtime.golden import STEPS, Golden, GoldenPrompt, GoldenSet
from satchel.runtime.golden_vision import PICTURE

PLAIN = (
    "The capital of France is Paris. The capital of Italy is Rome. The capital of Japan is Tokyo. The capital of Peru",
    'def is_prime(n: int) -> bool:\n    """Whether n is a prime number."""\n    if n < 2:\n        return False\n',
    "Heute scheint die Sonne, und wir fahren ans Meer. Il fait beau, 今日は",
    "Shopping list 🛒:\n- 3 apples 🍎\n- 12 eggs 🥚\n- 0.5 kg of flour\n- 250 g of",
)
CHAT = (
    "What is the capital of France? Answer in one sentence.",
    "Write a short poem about a river that reaches the sea.",
)

LARGE, LARGE_STEPS = 10**9, 8
"""A model of more weights than LARGE goes on for LARGE_STEPS ids, not STEPS, and gets all prompts in one batch: each
pass reads every weight, which of a streamed model takes seconds. Not memory but the model decides, so that the golden
data are the same wherever they are made."""
HUGE, HUGE_STEPS = 10**10, 4
"""The same of one that is ten times as large, whose passes take minutes where its file does not fit the disk cache."""

RANDOM_PROMPTS, RANDOM_LENGTH, RANDOM_SEED = 6, 28, 20260101
"""Where there is no tokenizer: prompts of random ids."""


@dataclass(frozen=True)
class Prompt:
    """A prompt before it is run: text as a user gives it (None without a tokenizer), and ids as the model is given."""

    text: str | None
    ids: tuple[int, ...]
    pictured: bool = False


def steps_for(config: DecoderConfig) -> int:
    """Ids of a greedy continuation."""
    if _weights(config) > HUGE:
        return HUGE_STEPS
    return LARGE_STEPS if is_large(config) else STEPS


def is_large(config: DecoderConfig) -> bool:
    """Whether a model is so large that passes over it are few."""
    return _weights(config) > LARGE


def _weights(config: DecoderConfig) -> int:
    return sum(rows * columns for rows, columns in config.matrix_shapes().values())


def golden_prompts(
    config: DecoderConfig, tokenizer: BundleTokenizer | None, context_length: int | None = None
) -> list[Prompt]:
    """The fixed prompts: plain text, code, other scripts, emoji and chat; or, without a tokenizer, random ids.

    Args:
        config: of the model.
        tokenizer: of the bundle.
        context_length: of the bundle; prompts are cut at the end so that they fit with the continuation.

    Raises:
        UsageError: the context has no room for a prompt.
    """
    room = room_for(config, context_length)
    prompts = random_prompts(config.vocab_size) if tokenizer is None else _texts(tokenizer)
    return [Prompt(p.text, p.ids[:room]) for p in prompts]


def room_for(config: DecoderConfig, context_length: int | None = None) -> int:
    """Ids that a golden prompt may have.

    Raises:
        UsageError: the context has no room for a prompt.
    """
    length, steps = min(context_length or config.max_position, config.max_position), steps_for(config)
    if length <= steps:
        raise UsageError(
            "the context is too short for the golden prompts", got=length, wanted=f"more than {steps} tokens"
        )
    return length - steps


def golden(
    reference: Reference,
    prompts: Sequence[Prompt],
    weights: Weights | None = None,
    progress: Progress = silent,
) -> Golden:
    """Runs the reference, and then, if given, the compressed weights in its place.

    Args:
        reference: holds the original weights; afterwards it holds `weights`.
        prompts: from golden_prompts.
        weights: as Reference.load_weights takes them.
        progress: told after each pass.
    """
    steps, stage = steps_for(reference.config), "Asking the reference model"
    chosen, greedy = reference.continuations([p.ids for p in prompts], steps, lambda n: progress(stage, n, steps + 1))
    answers = tuple(
        GoldenPrompt(p.text, p.ids, tuple(c), PICTURE if p.pictured else None)
        for p, c in zip(prompts, chosen, strict=True)
    )
    sets = {"reference": _condensed(reference, answers, greedy)}
    found = Golden(reference.config.vocab_size, answers, sets, reference.seen(None, "reference"))  # type: ignore[arg-type]
    progress(stage, steps + 1, steps + 1)
    return found if weights is None else with_weights(found, reference, weights, progress)


def with_weights(found: Golden, reference: Reference, weights: Weights, progress: Progress = silent) -> Golden:
    """The same golden data with the answers of other weights beside the reference's. `reference` then holds them."""
    reference.load_weights(weights)
    steps, stage = len(found.prompts[0].continuation), "Asking the compressed weights"
    _, greedy = reference.continuations([p.ids for p in found.prompts], steps, lambda n: progress(stage, n, steps + 1))
    sets = {**found.sets, "weights": _condensed(reference, found.prompts, greedy)}
    progress(stage, steps + 1, steps + 1)
    return Golden(found.vocab_size, found.prompts, sets, reference.seen(found.vision, "weights"))


def _condensed(reference: Reference, prompts: Sequence[GoldenPrompt], greedy: np.ndarray) -> GoldenSet:
    """What the model, with the weights that it holds now, says along the prompts' sequences, and of its own accord."""
    if not np.isfinite(greedy).all():
        raise CheckpointError("the reference model answers with NaN or infinity", hint="its weights overflow in fp32")
    # A generator where a sequence is declared: each prompt's logits are condensed before the next are computed.
    return GoldenSet.from_logits(cast(Sequence[np.ndarray], _forced(reference, prompts)), list(greedy))


def _forced(reference: Reference, prompts: Sequence[GoldenPrompt]) -> Iterator[np.ndarray]:
    if is_large(reference.config):
        yield from reference.batch_logits([prompt.sequence for prompt in prompts])
        return
    for prompt in prompts:
        yield reference.logits(prompt.sequence)


def _texts(tokenizer: BundleTokenizer) -> list[Prompt]:
    plain = [Prompt(text, tuple(tokenizer.encode(text))) for text in PLAIN]
    return [p for p in [*plain, *(_chat(tokenizer, text) for text in CHAT)] if p.ids]


def _chat(tokenizer: BundleTokenizer, text: str) -> Prompt:
    if tokenizer.chat_template is None or tokenizer.tells_the_time:
        return Prompt(text, tuple(tokenizer.encode(text)))
    return Prompt(text, tuple(tokenizer.encode_chat([{"role": "user", "content": text}])))


def random_prompts(vocab_size: int, without: int = -1) -> list[Prompt]:
    """Prompts of random ids, but for one id; the next takes its place."""
    generator = np.random.Generator(np.random.PCG64(RANDOM_SEED))
    ids = generator.integers(0, vocab_size, (RANDOM_PROMPTS, RANDOM_LENGTH))
    ids = np.where(ids == without, (ids + 1) % vocab_size, ids)
    return [Prompt(None, tuple(int(i) for i in row)) for row in ids]
