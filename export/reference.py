"""The reference: the model as transformers loads and runs it in fp32, independent of our reading and our decoder.

It is also made to run the compressed weights: whatever a bundle says is then held against the same independent program
with the same numbers. And it is what calibration listens to.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.registry import family_of
from satchel.export.huggingface import load_model
from satchel.export.palettize.tensors import Matrix
from satchel.export.source import Source
from satchel.runtime.errors import CheckpointError
from satchel.runtime.memory import return_freed_memory

ROWS_A_STEP = 4096  # of an embedding that are in memory as fp32 beside the model's own


class Reference:
    """A transformers model in fp32. As a context manager it gives its memory back at the end.

    Attributes:
        model: the torch module, a causal language model in evaluation mode.
        config: our reading of its configuration.
    """

    model: Any
    config: DecoderConfig

    def __init__(self, source: Source | Path) -> None:
        """Loads the model: 4 bytes a weight.

        Args:
            source: a Hugging Face folder or GGUF file.

        Raises:
            CheckpointError: it cannot be read, by us or by transformers.
        """
        path = source.path if isinstance(source, Source) else source
        checkpoint = open_checkpoint(path)
        family = family_of(checkpoint.config)
        self.config = family.configure(checkpoint.config)
        self._parameters = family.tensor_names(self.config)
        self.model = load_model(path)
        if checkpoint.kind == "gguf":
            _set_frequencies(self.model, self.config)

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the weights' memory back; the reference is of no use afterwards."""
        self.model = None
        gc.collect()
        return_freed_memory()

    def linears(self) -> dict[str, Any]:
        """Canonical name -> torch.nn.Linear, in the order of the forward pass; the head is "lm_head", tied or not."""
        names = [n for n in self.config.matrix_shapes() if n not in ("embed_tokens", "lm_head")]
        found = {n: self.model.get_submodule(self._parameters[n].removesuffix(".weight")) for n in names}
        return {**found, "lm_head": self.model.get_output_embeddings()}

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after each id, float32 [len(ids), vocab], in one pass without a cache."""
        import torch

        with torch.inference_mode():
            out = self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        return np.asarray(out.float().numpy())

    def greedy(self, ids: Sequence[int], steps: int) -> list[int]:
        """The likeliest continuation, id by id; of equal logits the lowest id; goes on after a stop id."""
        chosen, _ = self.continuations([ids], steps)
        return chosen[0]

    def continuations(self, prompts: Sequence[Sequence[int]], steps: int) -> tuple[list[list[int]], np.ndarray]:
        """Greedy continuations of several prompts at once, with a cache: weights are read once a step for all.

        Returns:
            (ids of each, [prompts][steps]; the logits that they were chosen from, float32 [prompts, steps, vocab]).
        """
        import torch

        ids, mask = _left_padded(prompts)
        chosen: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        cache = None
        with torch.inference_mode():
            for _ in range(steps):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = self.model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                    logits_to_keep=1,
                )  # fmt: skip
                cache = out.past_key_values
                logits.append(out.logits[:, -1].float().numpy())
                chosen.append(logits[-1].argmax(1))
                ids = torch.from_numpy(chosen[-1])[:, None]
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
        return np.stack(chosen, 1).tolist(), np.stack(logits, 1)

    def load_weights(self, weights: Iterable[tuple[str, Matrix]]) -> None:
        """Replaces every matrix, in place; norms and biases stay.

        Args:
            weights: (canonical name, matrix) of each matrix once, in any order; read one at a time, and dequantized
                some rows at a time. A tied head is embed_tokens.

        Raises:
            KeyError: a name is unknown, given twice, or not given.
        """
        import torch

        left = set(self.config.matrix_shapes())
        with torch.no_grad():
            for name, matrix in weights:
                left.remove(name)
                parameter = self.model.get_parameter(self._parameters[name])
                assert tuple(parameter.shape) == matrix.shape, name
                for start in range(0, matrix.shape[0], ROWS_A_STEP):
                    rows = slice(start, start + ROWS_A_STEP)
                    parameter[rows].copy_(torch.from_numpy(matrix.dequantize(rows)))
        if left:
            raise KeyError(f"no weights for {sorted(left)}")


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """(ids, mask), int64 [prompts, longest]; padding is id 0, masked out."""
    import torch

    longest = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


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
        if not torch.allclose(module.inv_freq, ours, rtol=1e-6, atol=0):
            module.inv_freq.copy_(ours)
