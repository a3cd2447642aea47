"""What all tasks over sounds share: preparation as data, held against transformers' own, and example sounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.runtime import strict_json
from satchel.runtime.errors import CheckpointError
from satchel.runtime.quiet import quiet_imports
from satchel.runtime.tasks.log_mel import Constants, LogMel, log_mel
from satchel.runtime.tasks.waveform import Waveform, filled, masks

SECONDS = 10
"""Of a window of samples: longer speech is several; longer sounds are refused by classifiers."""
SHARED = 6
"""A window of longer speech shares one part in so many with each neighbour, as in transformers' pipeline."""
SAME = 1e-3
"""How far our numbers may be from those of transformers' extractor, which computes spectra in fp32."""
FLOAT_EPSILON = 1.192092955078125e-07
"""AST's floor."""
WINDOW, FILTERS = "mel_window.f32", "mel_filters.f32"


@dataclass(frozen=True)
class SoundPreparation:
    """What is done to a sound first.

    Attributes:
        step: data of the step.
        files: that the step reads.
        constants: of a spectrogram.
    """

    step: LogMel | Waveform
    files: dict[str, bytes] = field(default_factory=dict)
    constants: Constants | None = None

    @property
    def data(self) -> dict[str, Any]:
        """As the manifest has it."""
        found: dict[str, Any] = strict_json.encode(self.step)
        return found


def extractor(checkpoint: TaskCheckpoint) -> Any:
    """transformers' feature extractor; CheckpointError where there is none."""
    with quiet_imports():
        from transformers import AutoFeatureExtractor
    return checkpoint.loaded(AutoFeatureExtractor)


def sound_preparation(checkpoint: TaskCheckpoint, *, long: bool = False) -> SoundPreparation:
    """What is to be done to a sound, as the model's own extractor does it.

    Args:
        checkpoint: opened.
        long: whether sounds that are longer than the model takes are taken, in pieces.

    Raises:
        CheckpointError: the extractor is of a kind that is not known, or does something else than our steps.
    """
    own = extractor(checkpoint)
    kinds: dict[str, Callable[[], SoundPreparation]] = {
        "Wav2Vec2FeatureExtractor": lambda: SoundPreparation(_waveform(checkpoint, own, long=long)),
        "ASTFeatureExtractor": lambda: _ast(own),
        "WhisperFeatureExtractor": lambda: _whisper(own, cut=not long),
    }
    if type(own).__name__ not in kinds:
        got = type(own).__name__
        raise CheckpointError("sounds are prepared in a way that is not known", got=got, wanted=", ".join(kinds))
    found = kinds[type(own).__name__]()
    _check(own, found)
    return found


def _waveform(checkpoint: TaskCheckpoint, own: Any, *, long: bool) -> Waveform:
    config = checkpoint.config
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if not kernels or not strides or getattr(config, "add_adapter", False):
        got = "an adapter behind the encoder" if kernels else f"no conv_kernel in {type(config).__name__}"
        raise CheckpointError("a model of waveforms of another kind than Wav2Vec2", got=got)
    rate, frame = int(own.sampling_rate), frame_samples(config)
    overlap = round(SECONDS * rate / SHARED / frame) * frame if long else None
    norm = "norm_mask" if getattr(config, "feat_extract_norm", "layer") == "group" else None
    return Waveform(
        step="waveform", input="input_values", rate=rate, samples=SECONDS * rate,
        normalize=bool(own.do_normalize), padding=float(own.padding_value), kernels=tuple(map(int, kernels)),
        strides=tuple(map(int, strides)), frame_mask="frame_mask", norm_mask=norm, overlap=overlap,
    )  # fmt: skip


def frame_samples(config: Any) -> int:
    """Samples from one frame of the encoder to the next."""
    return int(getattr(config, "inputs_to_logits_ratio", None) or math.prod(config.conv_stride))


def _ast(own: Any) -> SoundPreparation:
    """Kaldi's filter banks, of which the extractor keeps some numbers and fixes the others."""
    from transformers.audio_utils import mel_filter_bank, window_function

    filters = mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=own.num_mel_bins, min_frequency=20,
        max_frequency=own.sampling_rate // 2, sampling_rate=own.sampling_rate, norm=None, mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )  # fmt: skip
    how = LogMel(
        step="log_mel", input="input_values", rate=int(own.sampling_rate), samples=None, cut=False, window=WINDOW,
        filters=FILTERS, mels=int(own.num_mel_bins), fft=512, hop=160, center=False, remove_mean=True,
        preemphasis=0.97, floor=FLOAT_EPSILON, log="log", drop_last=False, range=None, frames=int(own.max_length),
        mean=float(own.mean) if own.do_normalize else 0.0, deviation=2 * float(own.std) if own.do_normalize else 1.0,
        first="frame",
    )  # fmt: skip
    return _with_files(how, window_function(400, "hann", periodic=False), filters)


def _whisper(own: Any, *, cut: bool) -> SoundPreparation:
    from transformers.audio_utils import window_function

    if getattr(own, "dither", 0.0):
        raise CheckpointError("noise is added to sounds", got=f"dither {own.dither}", wanted="0, which is reproducible")
    how = LogMel(
        step="log_mel", input="input_features", rate=int(own.sampling_rate), samples=int(own.n_samples), cut=cut,
        window=WINDOW, filters=FILTERS, mels=int(own.feature_size), fft=int(own.n_fft), hop=int(own.hop_length),
        center=True, remove_mean=False, preemphasis=None, floor=1e-10, log="log10", drop_last=True, range=8.0,
        frames=None, mean=-4.0, deviation=4.0, first="mel",
    )  # fmt: skip
    return _with_files(how, window_function(own.n_fft, "hann"), own.mel_filters)


def _with_files(how: LogMel, window: np.ndarray, filters: np.ndarray) -> SoundPreparation:
    files = {how.window: window.astype("<f4").tobytes(), how.filters: filters.astype("<f4").tobytes()}
    constants = Constants(window.astype("<f4").astype(np.float64), filters.astype("<f4").astype(np.float64))
    return SoundPreparation(how, files, constants)


def features(samples: np.ndarray, how: SoundPreparation) -> np.ndarray:
    """A window of float32 [samples] as the model takes it, without a batch."""
    samples = samples[: how.step.samples]
    if isinstance(how.step, Waveform):
        return filled(samples, how.step)
    assert how.constants is not None
    return log_mel(samples, how.step, how.constants)


def _check(own: Any, how: SoundPreparation) -> None:
    """Raises CheckpointError where our steps give other numbers than the extractor."""
    samples = sounds(how.step.rate)[0][: how.step.samples]
    wanted = np.asarray(own(samples, sampling_rate=how.step.rate, return_tensors="np")[how.step.input][0])
    found = features(samples, how)
    if isinstance(how.step, Waveform):
        found = found[: len(samples)]
    if found.shape != wanted.shape or float(np.abs(found - wanted).max()) > SAME:
        got = found.shape if found.shape != wanted.shape else f"{np.abs(found - wanted).max():.3g} apart"
        raise CheckpointError("our preparation of sounds is not the model's", got=got, wanted=wanted.shape)


@cache
def sounds(rate: int) -> tuple[np.ndarray, ...]:
    """Computed: vowels of gliding pitch between hisses and pauses, float32 [samples], of 3 to 8 seconds."""
    return tuple(_voice(rate, seconds, pitch, seed) for seconds, pitch, seed in ((6, 120, 0), (8, 210, 1), (3, 90, 2)))


FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""Hz of five vowels of men, after Peterson and Barney (1952)."""


def _voice(rate: int, seconds: int, pitch: float, seed: int) -> np.ndarray:
    noise = np.random.Generator(np.random.PCG64(seed))
    pieces = []
    for number in range(seconds * 4):
        t = np.arange(rate // 4) / rate
        phase = 2 * np.pi * pitch * (t + 0.1 * np.sin(2 * np.pi * t) + number / 4)
        envelope = np.sin(np.pi * t * 4) ** 2
        vowel = sum(
            np.sin(k * phase) * sum(np.exp(-(((k * pitch - f) / 120) ** 2)) for f in FORMANTS[number * (seed + 2) % 5])
            for k in range(1, int(3500 / pitch))
        )
        hiss = noise.standard_normal(len(t)) * (0.3 if number % 3 == 2 else 0.02)
        pieces.append(envelope * (0.0 if number % 7 == 6 else 0.1) * vowel + envelope * hiss + 1e-3 * hiss)
    return np.concatenate(pieces).astype(np.float32).clip(-1, 1)


def short_sound(how: Waveform) -> int:
    """Samples of the second example's sound."""
    return how.samples * 3 // 10


def waveform_examples(how: Waveform) -> tuple[dict[str, torch.Tensor], ...]:
    """A window filled whole, and one of a shorter sound."""
    own = sounds(how.rate)
    found = []
    for samples in (np.concatenate(own)[: how.samples], own[2][: short_sound(how)]):
        arrays = {how.input: filled(samples, how), **masks(len(samples), how)}
        found.append({name: torch.from_numpy(values)[None] for name, values in arrays.items()})
    return tuple(found)


def spectrogram_examples(how: SoundPreparation) -> tuple[dict[str, torch.Tensor], ...]:
    """Prepared sounds, one an example."""
    own = [features(samples, how) for samples in sounds(how.step.rate)]
    return tuple({how.step.input: torch.from_numpy(values)[None]} for values in own)
