"""The reference: the model as transformers loads and runs it in fp32, independent of our reading and our decoder.

It is also made to run the compressed weights: whatever a bundle says is then held against the same independent program
with the same numbers. And it is what calibration listens to.

A model that does not fit into memory is streamed (streaming.py): the same program, reading its matrices from the files
a piece at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MethodType, TracebackType
from typing import Any

import numpy as np

from satchel.export.checkpoint import Checkpoint, open_checkpoint
from satchel.export.families.base import DecoderConfig, Family, Joined, Place, Rows
from satchel.export.families.registry import family_of
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.huggingface import empty_model, filled_model, load_model
from satchel.export.ops.base import Weights
from satchel.export.source import Source
from satchel.runtime.errors import CheckpointError
from satchel.runtime.golden_vision import GoldenVision
from satchel.runtime.memory import return_freed_memory

ROWS_A_STEP = 4096  # of an embedding that are in memory as fp32 beside the model's own


class Reference:
    """A transformers model in fp32. As a context manager it gives its memory back at the end.

    Attributes:
        model: the torch module, a causal language model in evaluation mode.
        config: our reading of its configuration.
        streamed: whether its matrices stay in the files; `linears` and whatever looks at parameters is then of no use.
    """

    model: Any
    config: DecoderConfig
    streamed: bool

    def __init__(self, source: Source | Path, *, streamed: bool = False, context: int | None = None) -> None:
        """Loads the model, 4 bytes a weight, or makes it ready to be streamed.

        Args:
            source: a Hugging Face folder or GGUF file.
            streamed: read the matrices whenever they are used. Logits are the same, but for the last bits of some.
            context: tokens that the exported cache holds, for a model whose rotary embedding depends on it (see
                Rope.at_context); None leaves the choice to transformers, for each sequence.

        Raises:
            CheckpointError: it cannot be read, by us or by transformers.
        """
        path = source.path if isinstance(source, Source) else source
        checkpoint = open_checkpoint(path)
        family = family_of(checkpoint.config)
        self.config = family.configure(checkpoint.config)
        self._places = family.parameters(self.config)
        self.streamed = streamed
        self._stream: Any = None
        layout = family.gguf if checkpoint.kind == "gguf" else None
        given = layout.hugging_face(checkpoint.config) if layout and layout.hugging_face else None
        layers: list[dict[str, Any]] = []
        stand = family.stand

        def adapt(model: Any) -> None:
            if stand:
                stand.adapt(model, self.config)

        if family.stand:
            given = family.stand.configuration(checkpoint.config, self.config)
            layers = [family.stand.layer(self.config, i) for i in range(self.config.layers)]
        if streamed:
            self.model = self._streamed_model(checkpoint, family, lambda: empty_model(path, given, layers, adapt))
        elif given:
            tensors = CanonicalTensors(checkpoint, family, self.config)
            stored = _stored(tensors, self._places)
            if self.config.tied_embeddings:
                stored[family.tied_head] = stored[str(self._places["embed_tokens"])]  # one array, and so one matrix
            self.model = filled_model(empty_model(path, given, layers, adapt), stored)
        else:
            self.model = load_model(path)
        if checkpoint.kind == "gguf" and (given is None or self.config.rope.kind == "gguf_factors"):
            _set_frequencies(self.model, self.config)
        if context is not None and self.config.rope.long_inv_freq:
            _settle_frequencies(self.model, self.config, context)

    def _streamed_model(self, checkpoint: Checkpoint, family: Family, empty: Callable[[], Any]) -> Any:
        from satchel.export.streaming import CheckpointPieces, Streamed, layout, stream  # imports torch

        self._layout = layout(family, self.config)
        self._stream = Streamed(CheckpointPieces(checkpoint, family, self.config))
        return stream(empty(), self._stream, self.config.tied_embeddings)

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the weights' memory back; the reference is of no use afterwards."""
        self.model = None
        if self._stream is not None:
            self._stream.close()
        gc.collect()
        return_freed_memory()

    def linears(self) -> dict[str, Any]:
        """Canonical name -> torch.nn.Linear, in the order of the forward pass; the head is "lm_head", tied or not.

        Linears that transformers holds as one are left out.
        """
        whole = {n: p for n, p in self._places.items() if isinstance(p, str)}
        names = [n for n in self.config.linear_shapes() if n in whole]
        found = {n: self.model.get_submodule(whole[n].removesuffix(".weight")) for n in names}
        return {**found, "lm_head": self.model.get_output_embeddings()}

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after each id, float32 [len(ids), vocab], in one pass without a cache."""
        import torch

        with self._running():
            out = self.model(**self._given(torch.tensor([list(ids)])), use_cache=False).logits[0]
        return np.asarray(out.float().numpy())

    def batch_logits(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """`logits` of several sequences in one pass, equal but for rounding."""

        ids, mask = left_padded(sequences)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with self._running():
            given = self._given(ids, mask)
            out = self.model(**given, attention_mask=mask, position_ids=positions, use_cache=False).logits
        return [row[-len(s) :].float().numpy() for row, s in zip(out, sequences, strict=True)]

    def greedy(self, ids: Sequence[int], steps: int) -> list[int]:
        """The likeliest continuation, id by id; of equal logits the lowest id; goes on after a stop id."""
        chosen, _ = self.continuations([ids], steps)
        return chosen[0]

    def continuations(
        self, prompts: Sequence[Sequence[int]], steps: int, told: Callable[[int], None] = lambda step: None
    ) -> tuple[list[list[int]], np.ndarray]:
        """Greedy continuations of several prompts at once, with a cache: weights are read once a step for all.

        Args:
            prompts: ids of each.
            steps: ids to go on for.
            told: how many steps are done, after each.

        Returns:
            (ids of each, [prompts][steps]; the logits that they were chosen from, float32 [prompts, steps, vocab]).
        """
        import torch

        ids, mask = left_padded(prompts)
        chosen: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        cache = None
        with self._running():
            for step in range(steps):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = self.model(
                    **self._given(ids, mask), attention_mask=mask, position_ids=positions, past_key_values=cache,
                    use_cache=True, logits_to_keep=1,
                )  # fmt: skip
                cache = out.past_key_values
                logits.append(out.logits[:, -1].float().numpy())
                chosen.append(logits[-1].argmax(1))
                ids = torch.from_numpy(chosen[-1])[:, None]
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
                told(step + 1)
        return np.stack(chosen, 1).tolist(), np.stack(logits, 1)

    def seen(self, before: GoldenVision | None, name: str) -> GoldenVision | None:
        """What the model, with the weights that it holds now, makes of the golden picture, under a set's name.

        None for a model that does not see; vision/reference.py is of those that do.
        """
        return None

    def _given(self, ids: Any, mask: Any = None) -> dict[str, Any]:
        """How ids, int64 [prompts, length], are given to the model; where `mask` is 0 they are padding."""
        return {"input_ids": ids}

    @contextmanager
    def _running(self) -> Iterator[None]:
        import torch

        with torch.inference_mode(), self._stream.running() if self.streamed else nullcontext():
            yield

    def load_weights(self, weights: Weights) -> None:
        """Replaces every matrix; norms and biases stay.

        Args:
            weights: read a matrix at a time, and dequantized some rows at a time; by a streamed model at each use, so
                they must last. A tied head is embed_tokens.

        Raises:
            KeyError: a matrix is missing.
        """
        import torch

        if self.streamed:
            from satchel.export.streaming import MatrixPieces

            self._stream.pieces = MatrixPieces(weights, self._layout)
            return
        with torch.no_grad():
            for name in self.config.matrix_shapes():
                matrix, place = weights.matrix(name), self._places[name]
                assert isinstance(place, str | Rows), name
                parameter = self.model.get_parameter(place.name if isinstance(place, Rows) else place)
                if isinstance(place, Rows):
                    parameter = parameter[place.start : place.stop]
                assert tuple(parameter.shape) == matrix.shape, name
                for start in range(0, matrix.shape[0], ROWS_A_STEP):
                    rows = slice(start, start + ROWS_A_STEP)
                    parameter[rows].copy_(torch.from_numpy(matrix.dequantize(rows)))


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """(ids, mask), int64 [prompts, longest]; padding is id 0, masked out."""
    import torch

    longest = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _stored(tensors: CanonicalTensors, places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Tensors as transformers names and joins them."""
    parts: dict[str, list[tuple[int, np.ndarray]]] = {}
    for name, place in places.items():
        values = tensors.parameter(name)
        if isinstance(place, Joined):
            each = np.split(values, len(place.names))
            parts |= {stored: [(0, part)] for stored, part in zip(place.names, each, strict=True)}
        elif isinstance(place, Rows):
            parts.setdefault(place.name, []).append((place.start, values))
        else:
            assert isinstance(place, str), name
            parts[place] = [(0, values)]
    ordered = {stored: [v for _, v in sorted(found, key=lambda p: p[0])] for stored, found in parts.items()}
    return {stored: v[0] if len(v) == 1 else np.concatenate(v) for stored, v in ordered.items()}


def _settle_frequencies(model: Any, config: DecoderConfig, context: int) -> None:
    """Makes transformers turn every token as a cache of `context` tokens has it, however long a sequence is."""
    import torch

    rope = config.rope.at_context(context)
    chosen = torch.tensor(rope.inv_freq, dtype=torch.float32)
    for module in model.modules():
        if getattr(module, "rope_type", None) == "longrope":
            module.forward = MethodType(type(module).forward, module)  # as it was before a stand-in's own
            module.attention_scaling = rope.attention_factor
            for buffer in (module.inv_freq, module.original_inv_freq):
                buffer.copy_(chosen)
            module.long_inv_freq = chosen.clone()


def _set_frequencies(model: Any, config: DecoderConfig) -> None:
    """Gives the model the file's rope scaling, which transformers does not read from GGUF.

    Where there is none, transformers' own frequencies are left as they are.
    """
    import torch

    ours = torch.tensor(config.rope.inv_freq, dtype=torch.float32)
    rotary = [m for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    if not rotary or any(m.inv_freq.shape != ours.shape for m in rotary):
        raise CheckpointError("transformers reads another rotary embedding from the GGUF file than we do")
    for module in rotary:
        module.attention_scaling = config.rope.attention_factor
        if not torch.allclose(module.inv_freq, ours, rtol=1e-6, atol=0):
            module.inv_freq.copy_(ours)
