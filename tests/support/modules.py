"""Tiny modules of every kind of weight, with random numbers."""

from __future__ import annotations

import torch
from torch import nn


class Convolutions(nn.Module):
    """1-D, 2-D, depthwise, pointwise, transposed and weight-normed convolutions, a batch norm that folds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2, groups=2)
        self.line = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 32, 5, padding=2))
        self.classes = nn.Linear(32, 48)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.normal_()
            self.norm.bias.normal_()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor]]:
        x = self.norm(self.first(x)).relu()
        x = nn.functional.hardswish(self.wide(self.depthwise(x)))
        x = self.line(self.up(x).flatten(2))
        return {"scores": self.classes(x.mean(-1)), "maps": (x,)}


class Attention(nn.Module):
    """A tied embedding, a transformer's layer of any length, and a product with a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.turn = nn.Parameter(torch.randn(64, 64) / 8)
        self.head = nn.Linear(64, 64)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head((self.layer(self.embed(ids)) * scale) @ self.turn)


class Recurrent(nn.Module):
    """An LSTM in both directions, and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 32, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(64, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(self.lstm(x)[0])[0]


def seeded(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A module whose numbers follow from the seed, in eval mode."""
    torch.manual_seed(seed)
    return kind().eval()
