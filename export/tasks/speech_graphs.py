"""The two graphs of a Whisper-like model, for engines that want fixed shapes and no state.

    encoder     features -> for each layer of the decoder `cross_key_N` and `cross_value_N` [1, heads, frames, dim],
                which are computed once a window
    decoder     one id `input_ids` [1, 1] at `position` [1], those, and `past_key_N`, `past_value_N`
                [1, heads, slots, dim] -> `logits` [1, vocab], and `present_key_N`, `present_value_N`
                [1, heads, 1, dim], which the host puts into slot `position` of the past. Slots from `position` on are
                not looked at.

The layers are transformers' own, with its own caches in front of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from satchel.export.module.program import Inputs
from satchel.export.tasks.base import Graph
from satchel.runtime.quiet import quiet_imports
from satchel.runtime.tasks.transcript import KINDS, names_of

LOWEST = -3e4
"""What is added where the decoder must not look: fp16 holds it."""


class Encoder(torch.nn.Module):
    """Features -> keys and values of the decoder's cross attention.

    Args:
        model: Whisper-like, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.attentions = torch.nn.ModuleList(layer.encoder_attn for layer in model.get_decoder().layers)
        self.training = model.training

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """[1, mels, frames] -> them by name."""
        hidden = self.encoder(features)[0]
        found = {}
        for i, attention in enumerate(self.attentions):
            for kind, project in (("key", attention.k_proj), ("value", attention.v_proj)):
                rows = project(hidden).view(1, -1, attention.num_heads, attention.head_dim)
                found[f"cross_{kind}_{i}"] = rows.transpose(1, 2).contiguous()
        return found


class Step(torch.nn.Module):
    """One step of the decoder.

    Args:
        model: Whisper-like, in eval mode.
        slots: of the past.
    """

    def __init__(self, model: Any, slots: int) -> None:
        super().__init__()
        self.decoder, self.head = model.get_decoder(), model.get_output_embeddings()
        self.layers, self.slots, self.width = len(self.decoder.layers), slots, int(model.config.d_model)
        self.training = model.training

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names, in order."""
        return ("input_ids", "position", *names_of("cross", self.layers), *names_of("past", self.layers))

    def forward(self, ids: torch.Tensor, position: torch.Tensor, *states: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits and what is new, by name."""
        with quiet_imports():
            from transformers import DynamicCache, EncoderDecoderCache
        count = len(KINDS) * self.layers
        own, cross = DynamicCache(), DynamicCache()
        for i in range(self.layers):
            cross.update(states[2 * i], states[2 * i + 1], i)
            own.update(states[count + 2 * i], states[count + 2 * i + 1], i)
        cache = EncoderDecoderCache(own, cross)
        cache.is_updated = dict.fromkeys(range(self.layers), True)
        hidden = self.decoder(
            ids, attention_mask=self._mask(position), position_ids=position[None], past_key_values=cache,
            encoder_hidden_states=torch.zeros(1, 1, self.width), use_cache=True,
        )[0]  # fmt: skip
        found = {"logits": self.head(hidden)[:, -1]}
        for i in range(self.layers):
            layer = cache.self_attention_cache.layers[i]
            found |= {f"present_key_{i}": layer.keys[:, :, -1:], f"present_value_{i}": layer.values[:, :, -1:]}
        return found

    def _mask(self, position: torch.Tensor) -> torch.Tensor:
        """[1, 1, 1, slots + 1]: the past before `position`, and the id itself."""
        unused = torch.arange(self.slots) >= position
        return torch.cat([unused.float() * LOWEST, torch.zeros(1)])[None, None, None]


def graphs(
    model: Any, slots: int, features: Sequence[torch.Tensor], texts: Sequence[Sequence[int]]
) -> dict[str, Graph]:
    """Both graphs.

    Args:
        model: Whisper-like, in eval mode.
        slots: ids that the decoder keeps.
        features: of sounds, [1, mels, frames].
        texts: ids of a transcript of each, forced tokens first; up to `slots`.
    """
    encoder, step = Encoder(model).eval(), Step(model, slots).eval()
    heard = tuple({"input_features": one} for one in features)
    calls = [_calls(encoder, step, one["input_features"], ids) for one, ids in zip(heard, texts, strict=True)]
    measured = tuple(call for one in calls for call in one)
    return {
        "encoder": Graph(encoder, ("input_features",), heard[:1], calibration=heard[1:]),
        "decoder": Graph(step, step.inputs, (calls[0][-1],), calibration=measured[:-1]),
    }


def _calls(encoder: Encoder, step: Step, features: torch.Tensor, ids: Sequence[int]) -> list[Inputs]:
    """The inputs of each step along a transcript. All share one past, since no step looks at later slots."""
    with torch.no_grad():
        cross = encoder(features)
        shape = list(cross["cross_key_0"].shape)
        past = {name: torch.zeros([*shape[:2], step.slots, shape[3]]) for name in names_of("past", step.layers)}
        found: list[Inputs] = []
        for place, number in enumerate(ids):
            given = {"input_ids": torch.tensor([[number]]), "position": torch.tensor([place]), **cross, **past}
            found.append(given)
            said = step(*(given[name] for name in step.inputs))
            for name, values in past.items():
                values[:, :, place] = said[name.replace("past", "present")][:, :, 0]
    return found
