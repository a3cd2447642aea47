"""Writes two vision networks of about 20 million parameters, as Core ML packages and as ONNX models.

usage: python benchmarks/coreml_networks.py FOLDER

For each of convnet and vit: NAME.mlpackage (fp32), NAME-fp16.mlpackage and NAME.onnx, with random weights: speed does
not depend on them. torch exports the ONNX model, coremltools converts to Core ML.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import coremltools as ct
import torch
from torch import nn
from torch.nn import functional as F

SIDE = 224
STAGES = ((64, 3, 1), (128, 4, 2), (256, 8, 2), (384, 3, 2))  # channels, blocks, stride of the first
DIM, LAYERS, HEADS, PATCH = 384, 12, 6, 16


class Basic(nn.Module):
    """Two 3x3 convolutions with a way around them, as ResNet-34 has them."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        plain = stride == 1 and channels == out
        self.around = nn.Identity() if plain else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, ...] -> [1, ...]."""
        return F.relu(self.body(x) + self.around(x))


class Inverted(nn.Module):
    """Expand, depthwise, project, as MobileNet V2 does."""

    def __init__(self, channels: int, factor: int = 6) -> None:
        super().__init__()
        wide = channels * factor
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, ...] -> [1, ...]."""
        return x + self.body(x)


class Convnet(nn.Module):
    """Residual stages of 3x3 convolutions, a depthwise block at the end of each."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for out, blocks, stride in STAGES:
            for i in range(blocks):
                layers.append(Basic(channels if i == 0 else out, out, stride if i == 0 else 1))
            layers.append(Inverted(out))
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, ...] -> [1, ...]."""
        return self.head(self.body(x).mean((2, 3)))


class Layer(nn.Module):
    """Attention and a wide layer, each after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.wide = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, ...] -> [1, ...]."""
        q, k, v = self.qkv(self.norm1(x)).reshape(1, -1, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(1, -1, DIM))
        return x + self.wide(self.norm2(x))


class ViT(nn.Module):
    """ViT-small."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, 1, DIM))
        self.places = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, DIM))
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, ...] -> [1, ...]."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = self.layers(torch.cat([self.first, y], 1) + self.places)
        return self.head(self.norm(y)[:, 0])


def write(name: str, network: nn.Module, folder: Path) -> None:
    """The network's three files."""
    network = network.eval()
    print(name, sum(p.numel() for p in network.parameters()) / 1e6, "million parameters", file=sys.stderr)
    example = (torch.randn(1, 3, SIDE, SIDE),)
    torch.onnx.export(network, example, str(folder / f"{name}.onnx"), input_names=["x"], dynamo=False)
    exported = torch.export.export(network, example).run_decompositions({})
    for suffix, precision in (("", ct.precision.FLOAT32), ("-fp16", ct.precision.FLOAT16)):
        model = ct.convert(
            exported, compute_precision=precision, minimum_deployment_target=ct.target.iOS17, skip_model_load=True
        )
        model.save(str(folder / f"{name}{suffix}.mlpackage"))


def main() -> None:
    """Command line."""
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        write("convnet", Convnet(), folder)
        write("vit", ViT(), folder)


if __name__ == "__main__":
    main()
