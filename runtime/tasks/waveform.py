"""Sound -> windows of samples of one fixed length, and which of their frames are real.

Data: `input`; `rate` (Hz); `samples` (of a window); `normalize`: each window to mean 0 and variance 1 over its real
samples (1e-7 added to the variance); `padding`, what follows them; `kernels` and `strides` of the convolutions that
make frames of samples; `frame_mask`, the input float32 [1, frames] that is 1 for frames of real samples alone and 0
behind them; `norm_mask`, likewise for the frames of the first convolution, or null; `overlap`, samples that a window
shares with its neighbours on each side, or null where a longer sound is refused.

Given is "audio", a path or an array or a list of them (runtime/audio.py). A sound of up to `samples` is one window.
Windows of a longer one begin every `samples - 2 * overlap`, until one holds its end. Notes: "windows", for each sound a
list of Window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.audio import sound
from satchel.runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call

EPSILON = 1e-7


@dataclass(frozen=True)
class Waveform:
    """The data of the step."""

    step: str
    input: str
    rate: int
    samples: int
    normalize: bool
    padding: float
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    frame_mask: str
    norm_mask: str | None
    overlap: int | None

    def frames(self, samples: int) -> list[int]:
        """Frames behind each convolution, of so many samples."""
        found = []
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
            found.append(samples)
        return found


@dataclass(frozen=True)
class Window:
    """A row of the input.

    Attributes:
        samples: real ones.
        left, right: samples that belong to its neighbours.
        frames: real ones.
    """

    samples: int
    left: int
    right: int
    frames: int


def prepare(call: Call, data: Any) -> None:
    """Adds the windows of all sounds, one below the other, and their masks."""
    how = strict_json.decode(Waveform, data, "task.inputs.audio")
    numbers = (*how.kernels, *how.strides, how.samples, how.rate)
    if len(how.kernels) != len(how.strides) or min(numbers) < 1 or not how.kernels or (how.overlap or 0) < 0:
        raise BundleError("impossible windows of a waveform", got=how)
    rows, windows = [], []
    for one in sounds(call):
        samples = sound(one, how.rate)
        pieces = list(cut(len(samples), how))
        rows += [samples[start : start + window.samples] for start, window in pieces]
        windows.append([window for _, window in pieces])
    call.inputs[how.input] = np.stack([filled(row, how) for row in rows])
    of_rows = [masks(len(row), how) for row in rows]
    call.inputs |= {name: np.stack([one[name] for one in of_rows]) for name in of_rows[0]}
    call.notes["windows"] = windows


def sounds(call: Call) -> list[Any]:
    """What was given as "audio", as a list."""
    given = call.given["audio"]
    found = given if isinstance(given, list) else [given]
    if not found:
        raise UsageError("no sound", got=given, wanted="a path or an array")
    return found


def cut(length: int, how: Waveform) -> Iterator[tuple[int, Window]]:
    """(first sample, window) of a sound of so many samples."""
    if not how.frames(length)[-1]:
        raise UsageError("a sound that is too short", got=f"{length / how.rate:.4f} s", wanted="more than one frame")
    if length <= how.samples:
        yield 0, Window(length, 0, 0, how.frames(length)[-1])
        return
    if how.overlap is None or 2 * how.overlap >= how.samples:
        wanted = f"up to {how.samples / how.rate:g} s"
        raise UsageError("a sound that is too long", got=f"{length / how.rate:.2f} s", wanted=wanted, hint="cut it")
    for start in range(0, length, how.samples - 2 * how.overlap):
        count, last = min(how.samples, length - start), start + how.samples >= length
        left = how.overlap if start else 0
        if count > left and how.frames(count)[-1]:
            yield start, Window(count, left, 0 if last else how.overlap, how.frames(count)[-1])
        if last:
            return


def filled(samples: np.ndarray, how: Waveform) -> np.ndarray:
    """float32 [how.samples]."""
    if how.normalize:
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + EPSILON)
    found = np.full(how.samples, how.padding, np.float32)
    found[: len(samples)] = samples
    return found


def masks(samples: int, how: Waveform) -> dict[str, np.ndarray]:
    """Name of each mask -> float32 [frames], for a window of so many real samples."""
    every, real = how.frames(how.samples), how.frames(samples)
    names = {how.frame_mask: -1} | ({} if how.norm_mask is None else {how.norm_mask: 0})
    return {name: (np.arange(every[i]) < real[i]).astype(np.float32) for name, i in names.items()}
