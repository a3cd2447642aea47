"""Networks that see: convolutional ones, a vision transformer, a detector, images in and out, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from networks.base import Arrays, Network, normal, run_torch, settled


class Bottleneck(nn.Module):
    """Expand, depthwise, squeeze and excite, project, as MobileNet V3 does."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = channels * 4
        self.expand = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.squeeze, self.excite = nn.Conv2d(wide, 8, 1), nn.Conv2d(8, wide, 1)
        self.project = nn.Conv2d(wide, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.skip = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.hardswish(self.norm1(self.expand(x)))
        y = F.relu6(self.norm2(self.depthwise(y)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = self.norm3(self.project(y))
        return x + y if self.skip else y


class MobileNet(nn.Module):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.Sequential(Bottleneck(8, 8, 1), Bottleneck(8, 12, 2), Bottleneck(12, 12, 1))
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.blocks(F.silu(self.stem(x))))
        return F.softmax(self.head(y.mean((2, 3))), -1)


class ViT(nn.Module):
    """Patches, a class token, pre-norm attention and MLP blocks."""

    def __init__(self, dim: int = 48, heads: int = 4, layers: int = 2, patch: int = 8, side: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, dim))
        self.blocks = nn.ModuleList(ViTBlock(dim, heads, 2 * dim) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls.expand(y.shape[0], -1, -1), y], 1) + self.positions
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y)[:, 0])


class ViTBlock(nn.Module):
    """torch's fused attention and a GELU MLP."""

    def __init__(self, dim: int, heads: int, wide: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, wide), nn.GELU(), nn.Linear(wide, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, dim))
        return x + self.mlp(self.norm2(x))


class UNet(nn.Module):
    """Down by strides and pools, up by transposed convolutions and by interpolation, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.SiLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.InstanceNorm2d(12, affine=True), nn.PReLU(12))
        nn.init.uniform_(self.down2[2].weight, -1, 1)
        self.middle = nn.Sequential(nn.Conv2d(12, 16, 3, padding=2, dilation=2), nn.ELU(), nn.AvgPool2d(2))
        self.up2 = nn.ConvTranspose2d(16, 12, 4, 2, 1)
        self.up1 = nn.ConvTranspose2d(24, 8, 3, 2, 1, output_padding=1, groups=4)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(one)
        y = torch.cat([self.up2(self.middle(two)), two], 1)
        y = torch.cat([F.gelu(self.up1(y), approximate="tanh"), one], 1)
        return F.interpolate(self.out(y), scale_factor=2, mode="bilinear", align_corners=False)


class ImageFilter(nn.Module):
    """An image of bytes in, an image of bytes out: blurred, upsampled and tinted."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 5, padding=2, padding_mode="reflect")
        self.shuffle = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = F.pixel_shuffle(self.shuffle(self.blur(image)), 2)
        y = y + F.interpolate(image, scale_factor=2, mode="nearest")
        return (torch.tanh(y) * 100 + 128).clamp(0, 255)


class VideoNet(nn.Module):
    """Convolutions over time and space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm3d(6)
        self.conv2 = nn.Conv3d(6, 8, (1, 3, 3), (1, 2, 2), padding=(0, 1, 1), groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.max_pool3d(F.softplus(self.norm(self.conv1(x))), 2)
        return F.leaky_relu(self.conv2(y), 0.1).mean((3, 4))


class Activations(nn.Module):
    """Norms and activations that the others lack, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(3, 12), nn.LocalResponseNorm(3)
        self.norm3 = nn.LayerNorm([12, 6, 6])
        self.conv = nn.Conv2d(12, 12, 3, padding=1, groups=3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.mish(self.norm1(x)) + F.softsign(x) - F.selu(x)
        y = self.norm2(self.conv(F.pad(y, (1, 1, 2, 0), mode="replicate")[..., 1:-1, 1:-1]))
        z = torch.logsumexp(self.norm3(y[..., :6, :6]), 1)
        top, where = torch.topk(z.flatten(1), 5)
        ranked = torch.gather(z.flatten(1), 1, where.flip(1))
        return F.elu(top) + F.hardtanh(ranked) * torch.erf(top), F.normalize(y, dim=1)


def images(seed: int = 0) -> np.ndarray:
    """An image of bytes, [1, 3, 24, 32], as floats."""
    return np.random.default_rng(seed).integers(0, 256, (1, 3, 24, 32)).astype(np.float32)


def _mobilenet() -> nn.Module:
    return settled(MobileNet(), torch.randn(4, 3, 48, 48))


def _unet() -> nn.Module:
    return settled(UNet(), torch.randn(2, 2, 32, 32))


def _video() -> nn.Module:
    return settled(VideoNet(), torch.randn(2, 2, 8, 16, 16))


SCALE, BIAS = 1 / 127.5, (-1.0, -0.9, -0.8)


def _tinted(module: nn.Module, calls: Sequence[Arrays]) -> list[list[np.ndarray]]:
    """The filter behind the scale and bias that the program itself applies to an image."""
    bias = np.array(BIAS, np.float32).reshape(1, 3, 1, 1)
    return run_torch(module, [{"image": call["image"] * np.float32(SCALE) + bias} for call in calls])


def _image_options() -> dict[str, Any]:
    import coremltools as ct

    scaled = {"scale": SCALE, "bias": list(BIAS), "color_layout": ct.colorlayout.RGB}
    return {
        "inputs": [ct.ImageType("image", (1, 3, 24, 32), **scaled)],
        "outputs": [ct.ImageType("picture", color_layout=ct.colorlayout.RGB)],
    }


NETWORKS: dict[str, Network] = {
    "mobilenet": Network(_mobilenet, lambda: [{"x": normal(2, 3, 48, 48)}], ops=("conv", "max_pool", "softmax")),
    "vit": Network(ViT, lambda: [{"x": normal(2, 3, 32, 32)}], ops=("layer_norm", "gelu", "softmax")),
    "vit with fused attention": Network(
        ViT, lambda: [{"x": normal(2, 3, 32, 32)}], target="iOS18", ops=("scaled_dot_product_attention",)
    ),
    "unet": Network(_unet, lambda: [{"x": normal(1, 2, 32, 32)}], ops=("conv_transpose", "upsample_bilinear", "prelu")),
    "video": Network(_video, lambda: [{"x": normal(1, 2, 8, 16, 16)}], ops=("conv", "softplus")),
    "activations": Network(Activations, lambda: [{"x": normal(2, 12, 8, 8)}], ops=("topk", "gather_along_axis")),
    "image filter": Network(
        ImageFilter,
        lambda: [{"image": images()}],
        _tinted,
        options=_image_options,
        ops=("pixel_shuffle", "upsample_nearest_neighbor"),
    ),
}
