"""Sound -> log-mel spectrograms, with all constants from the bundle.

Data: `input`; `rate` (Hz); `samples`: a shorter sound is followed by zeros up to so many, or null; `cut`: whether a
longer one is cut to them; `window` and `filters`, files of little-endian float32: the window [length], which is a
frame's length, and the filters [fft / 2 + 1, `mels`]; `mels`; `fft`; `hop`; `center`: half a frame is put on each side
first, mirrored without the edge's own sample; `remove_mean` (of each frame); `preemphasis`, or null; `floor`; `log`,
"log" or "log10"; `drop_last`: whether the last frame goes; `range`: everything is raised to the largest value less
this, or null; `frames`: zeros follow up to so many, and what is beyond goes, or null; `mean` and `deviation`; `first`,
"mel" for [mels, frames], "frame" for [frames, mels].

A frame of samples x (mean taken off, then x[i] - preemphasis * x[i - 1], and x[0] * (1 - preemphasis)) times the
window, zeros behind it up to `fft`: the squares of its spectrum times the filters, no less than the floor, and the
logarithm of that. In the end `mean` is taken off and the rest divided by `deviation`. Given is "audio" as in
waveform.py. Notes: "features", for each sound float32 as `first` says, with as many frames as it has; these are the
input too where all have the same number (`cut` or `frames`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.audio import sound
from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.manifest import check_path

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call

AT_ONCE = 4096
"""Frames whose spectra are computed together."""


@dataclass(frozen=True)
class LogMel:
    """The data of the step."""

    step: str
    input: str
    rate: int
    samples: int | None
    cut: bool
    window: str
    filters: str
    mels: int
    fft: int
    hop: int
    center: bool
    remove_mean: bool
    preemphasis: float | None
    floor: float
    log: Literal["log", "log10"]
    drop_last: bool
    range: float | None
    frames: int | None
    mean: float
    deviation: float
    first: Literal["mel", "frame"]


@dataclass(frozen=True)
class Constants:
    """What the step's files hold: float64 `window` [length] and `filters` [fft / 2 + 1, mels]."""

    window: np.ndarray
    filters: np.ndarray


def prepare(call: Call, data: Any) -> None:
    """Adds the spectrograms of all sounds."""
    from satchel.runtime.tasks.waveform import sounds

    how = strict_json.decode(LogMel, data, "task.inputs.audio")
    constants = read_constants(call.session.bundle.folder, how)
    found = [log_mel(sound(one, how.rate), how, constants) for one in sounds(call)]
    call.notes["features"] = found
    if how.cut or how.frames is not None:
        call.inputs[how.input] = np.stack(found)


def read_constants(folder: Path, how: LogMel) -> Constants:
    """Window and filters.

    Raises:
        BundleError: a file is missing or of another size, or numbers of the step are impossible.
    """
    window, filters = (_floats(folder, name) for name in (how.window, how.filters))
    frames = 1 if how.frames is None else how.frames
    numbers = (how.mels, how.fft, how.hop, how.rate, how.deviation, how.floor, frames)
    if not len(window) or min(numbers) <= 0 or len(window) > how.fft or len(filters) != (how.fft // 2 + 1) * how.mels:
        raise BundleError("constants of a spectrogram that do not fit", got=(len(window), len(filters)), wanted=how)
    return Constants(window, filters.reshape(-1, how.mels))


def _floats(folder: Path, name: str) -> np.ndarray:
    path = folder / check_path(name)
    if not path.is_file() or path.stat().st_size % 4:
        raise BundleError("a file of the task is missing, or of the wrong size", got=name)
    return np.fromfile(path, "<f4").astype(np.float64)


def log_mel(samples: np.ndarray, how: LogMel, constants: Constants) -> np.ndarray:
    """The spectrogram of float32 [samples]."""
    length, half = len(constants.window), len(constants.window) // 2
    samples = _padded(samples, how).astype(np.float64)
    if how.center and len(samples) > half:
        samples = np.pad(samples, half, mode="reflect")
    if len(samples) < length:
        raise UsageError("a sound that is too short", got=f"{len(samples)} samples", wanted=f"{length} or more")
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[:: how.hop]
    frames = frames[: len(frames) - 1] if how.drop_last else frames
    parts = [_energies(frames[i : i + AT_ONCE], how, constants) for i in range(0, len(frames), AT_ONCE)]
    found = (np.log10 if how.log == "log10" else np.log)(np.maximum(np.concatenate(parts), how.floor))
    if how.range is not None:
        found = np.maximum(found, found.max() - how.range)
    if how.frames is not None:
        found = found[: how.frames]
        found = np.pad(found, ((0, how.frames - len(found)), (0, 0)))
    found = ((found - how.mean) / how.deviation).astype(np.float32)
    return np.ascontiguousarray(found.T if how.first == "mel" else found)


def _padded(samples: np.ndarray, how: LogMel) -> np.ndarray:
    if how.samples is None:
        return samples
    return np.pad(samples, (0, max(0, how.samples - len(samples))))[: how.samples if how.cut else None]


def _energies(frames: np.ndarray, how: LogMel, constants: Constants) -> np.ndarray:
    """[frames, length] -> [frames, mels]."""
    frames = frames.copy()
    if how.remove_mean:
        frames -= frames.mean(1, keepdims=True)
    if how.preemphasis is not None:
        before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)  # the first is its own predecessor
        frames -= how.preemphasis * before
    spectrum = np.fft.rfft(frames * constants.window, how.fft)
    return np.asarray((spectrum.real**2 + spectrum.imag**2) @ constants.filters)
