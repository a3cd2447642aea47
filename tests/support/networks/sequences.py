"""Networks over sequences: recurrent ones, encoders, decoders with a cache in states, an audio front end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from networks.base import Arrays, Network, normal, tokens


class Lstm(nn.Module):
    """Two layers in both directions, and the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 7)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y, (h, c) = self.lstm(self.embed(ids))
        return F.log_softmax(self.head(y), -1), h, c


class Gru(nn.Module):
    """A GRU and a plain tanh recurrence, from given states."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 9, batch_first=True)
        self.rnn = nn.RNN(9, 5)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, last = self.gru(x, h)
        z, _ = self.rnn(y.transpose(0, 1))
        return z, last


def bert() -> nn.Module:
    """transformers' encoder with random weights."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=32, attn_implementation="eager",
    )  # fmt: skip

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            added = (1.0 - mask[:, None, None, :].float()) * -1e4
            found = self.bert(ids, attention_mask=added)
            return found.last_hidden_state, found.pooler_output

    return Encoder()


def _masked() -> list[Arrays]:
    mask = np.ones((2, 12), np.int32)
    mask[1, 7:] = 0
    return [{"ids": tokens(2, 12, below=99), "mask": mask}]


HEADS, CONTEXT, LAYERS, DIM = 2, 16, 2, 8  # key-value heads of the decoder, its context, layers, width of a head


def llama() -> nn.Module:
    """transformers' decoder with random weights; its cache lies in buffers, which become states."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.cache_utils import Cache

    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=HEADS, max_position_embeddings=CONTEXT, attn_implementation="sdpa",
    )  # fmt: skip

    class BufferCache(Cache):
        """Writes new keys and values behind the old ones, and gives all up to there."""

        def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
            super().__init__(layers=[])
            self.buffers, self.first = (keys, values), 0

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return self.first

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *_: Any, **__: Any) -> Any:
            end = self.first + key_states.shape[2]
            for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
                buffer[layer_idx : layer_idx + 1, :, :, self.first : end, :] = new[None]
            return tuple(buffer[layer_idx, :, :, :end, :] for buffer in self.buffers)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.llama = LlamaForCausalLM(config)
            for name in ("keys", "values"):
                self.register_buffer(name, torch.zeros(LAYERS, 1, HEADS, CONTEXT, DIM))
            self.cache = BufferCache(self.keys, self.values)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            self.cache.first = mask.shape[-1] - ids.shape[-1]
            first = torch.arange(CONTEXT)[self.cache.first :][: ids.shape[1]][None]
            return self.llama(ids, attention_mask=mask, position_ids=first, past_key_values=self.cache).logits

    return Decoder()


def _generated() -> list[Arrays]:
    """A prompt of 5 tokens, then 3 single ones."""
    ids, calls, first = tokens(1, 8, below=61), [], 0
    for count in (5, 1, 1, 1):
        mask = np.triu(np.full((count, first + count), -1e4, np.float32), first + 1)[None, None]
        calls.append({"ids": ids[:, first : first + count], "mask": mask})
        first += count
    return calls


def _without_cache(module: nn.Module, calls: Sequence[Arrays]) -> list[list[np.ndarray]]:
    """transformers' own forward over the whole text, no cache; cut into what each call should give."""
    ids = np.concatenate([c["ids"] for c in calls], 1)
    with torch.no_grad():
        logits = module.llama(torch.from_numpy(ids), use_cache=False).logits.numpy()
    ends = np.cumsum([c["ids"].shape[1] for c in calls])
    return [[part] for part in np.split(logits, ends[:-1], 1)]


def _llama_options() -> dict[str, Any]:
    import coremltools as ct

    length, end = ct.RangeDim(1, CONTEXT, default=1), ct.RangeDim(1, CONTEXT, default=1)
    shape = (LAYERS, 1, HEADS, CONTEXT, DIM)
    states = [ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), n) for n in ("keys", "values")]
    inputs = [
        ct.TensorType("ids", (1, length), np.int32),
        ct.TensorType("mask", (1, 1, length, end), np.float32),
    ]
    return {"inputs": inputs, "states": states}


class Accumulator(nn.Module):
    """Two states, each read and written: a running sum and an exponential mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4))
        self.register_buffer("mean", torch.zeros(1, 4))
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        self.mean.mul_(0.5)
        self.mean.add_(x * 0.5)
        return self.linear(self.total) - self.mean


def _accumulator_options() -> dict[str, Any]:
    import coremltools as ct

    states = [ct.StateType(ct.TensorType(shape=(1, 4), dtype=np.float16), n) for n in ("total", "mean")]
    return {"states": states}


class AudioNet(nn.Module):
    """Frames by a strided convolution with a Fourier basis, log-mel bands, a convolutional classifier."""

    def __init__(self, window: int = 64, hop: int = 16, bands: int = 12) -> None:
        super().__init__()
        t, f = torch.arange(window), torch.arange(window // 2 + 1)
        angle = 2 * torch.pi * f[:, None] * t / window
        basis = torch.cat([torch.cos(angle), -torch.sin(angle)]) * torch.hann_window(window)
        self.register_buffer("basis", basis[:, None])
        self.register_buffer("mel", torch.rand(bands, window // 2 + 1))
        self.hop = hop
        self.norm = nn.InstanceNorm1d(bands)
        self.conv1, self.conv2 = nn.Conv1d(bands, 16, 3, padding=1), nn.Conv1d(16, 16, 3, 2, dilation=2, groups=4)
        self.head = nn.Linear(16, 5)

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.pad(wave[:, None], (32, 32), mode="reflect")
        real, imaginary = F.conv1d(x, self.basis, stride=self.hop).chunk(2, 1)
        mel = torch.log10(torch.clamp(self.mel @ (real**2 + imaginary**2), min=1e-5))
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        y = F.gelu(self.conv2(F.glu(torch.cat([self.conv1(self.norm(mel))] * 2, 1), 1)))
        return mel, torch.sigmoid(self.head(y.std(2)))


class Stft(nn.Module):
    """torch's own Fourier transform of frames, its magnitude."""

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(wave, 64, 16, window=torch.hann_window(64), center=True, return_complex=True)
        return torch.abs(spectrum).cumsum(-1)


def _wave() -> list[Arrays]:
    t = np.arange(512, dtype=np.float32) / 512
    wave = np.stack([np.sin(2 * np.pi * f * t * t) for f in (40, 90)])
    return [{"wave": (wave + 0.1 * normal(2, 512)).astype(np.float32)}]


NETWORKS: dict[str, Network] = {
    "lstm": Network(Lstm, lambda: [{"ids": tokens(2, 9, below=50)}], ops=("lstm", "gather")),
    "gru": Network(
        Gru, lambda: [{"x": normal(2, 7, 6), "h": normal(1, 2, 9, seed=1)}], ops=("while_loop", "scatter", "rnn")
    ),
    "bert": Network(bert, _masked, ops=("layer_norm", "matmul", "gelu")),
    "bert, exported": Network(bert, _masked, route="export", ops=("layer_norm", "matmul", "gelu")),
    "llama with states": Network(
        llama, _generated, _without_cache, target="iOS18", options=_llama_options, ops=("slice_update", "write_state")
    ),
    "accumulator": Network(
        Accumulator,
        lambda: [{"x": normal(1, 4, seed=s)} for s in range(3)],
        target="iOS18",
        options=_accumulator_options,
        ops=("write_state",),
    ),
    "audio": Network(AudioNet, _wave, ops=("conv", "log", "instance_norm")),
    "stft": Network(Stft, _wave, ops=()),
}
