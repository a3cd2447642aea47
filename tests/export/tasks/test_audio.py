"""Preparation of sounds: transformers' own feature extractors are the reference."""

import numpy as np
import pytest
import transformers

from satchel.export.source import Source
from satchel.export.tasks.audio import features, sound_preparation, sounds
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.runtime.errors import CheckpointError
from satchel.runtime.tasks.log_mel import log_mel

EXTRACTORS = {
    "whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=80),
    "whisper-large-v3": lambda: transformers.WhisperFeatureExtractor(feature_size=128),
    "ast": lambda: transformers.ASTFeatureExtractor(),
    "ast, few bins": lambda: transformers.ASTFeatureExtractor(num_mel_bins=64, max_length=300, do_normalize=False),
    "wav2vec2": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=True),
    "wav2vec2, plain": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
}
CONFIGS = {"wav": transformers.Wav2Vec2Config, "ast": transformers.ASTConfig, "whi": transformers.WhisperConfig}


def checkpoint_of(folder, config, extractor=None):
    config.save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    return TaskCheckpoint(Source(folder, "tiny", "tiny"), "audio-classification", None)


def saved(folder, name):
    return checkpoint_of(folder, CONFIGS[name[:3]](), EXTRACTORS[name]())


@pytest.mark.parametrize("name", list(EXTRACTORS))
def test_features_are_those_of_transformers(tmp_path, name):
    how = sound_preparation(saved(tmp_path, name))
    own = EXTRACTORS[name]()
    noise = np.random.default_rng(1).standard_normal(5 * 16000).astype(np.float32) * 0.3
    for samples in (sounds(16000)[2], noise, np.zeros(16000, np.float32), noise[:1000] + 0.5):
        wanted = own(samples, sampling_rate=16000, return_tensors="np")[how.step.input][0]
        found = features(samples, how)
        if name.startswith("wav2vec2"):
            assert not found[len(samples) :].any()
            found = found[: len(samples)]
        assert found.dtype == np.float32 and found.shape == wanted.shape
        assert np.abs(found - wanted).max() < (1e-6 if name.startswith("wav2vec2") else 2e-4)  # they keep fp32 spectra


def test_long_sounds_make_one_spectrogram_as_in_transformers(tmp_path):
    how = sound_preparation(saved(tmp_path, "whisper"), long=True)
    samples = np.concatenate([*sounds(16000)] * 3)[: 41 * 16000 + 77]
    own = EXTRACTORS["whisper"]()
    wanted = own(samples, sampling_rate=16000, truncation=False, padding="longest", return_tensors="np")
    found = log_mel(samples, how.step, how.constants)
    assert found.shape == wanted["input_features"][0].shape == (80, 4100)
    assert np.abs(found - wanted["input_features"][0]).max() < 2e-4


def test_extractors_that_are_not_known_are_refused(tmp_path):
    ast = transformers.ASTConfig()
    with pytest.raises(CheckpointError, match="cannot read the model's featureextractor"):
        sound_preparation(checkpoint_of(tmp_path, ast))
    with pytest.raises(CheckpointError, match="a way that is not known"):
        sound_preparation(checkpoint_of(tmp_path, ast, transformers.SeamlessM4TFeatureExtractor()))
    with pytest.raises(CheckpointError, match="noise"):
        sound_preparation(checkpoint_of(tmp_path, ast, transformers.WhisperFeatureExtractor(dither=0.1)))
    with pytest.raises(CheckpointError, match="another kind than Wav2Vec2"):
        sound_preparation(checkpoint_of(tmp_path, ast, transformers.Wav2Vec2FeatureExtractor()))


def test_an_extractor_that_computes_otherwise_is_found_out(tmp_path, monkeypatch):
    own = transformers.ASTFeatureExtractor
    monkeypatch.setattr(own, "normalize", lambda self, values: (values - self.mean) / self.std)
    with pytest.raises(CheckpointError, match="is not the model's"):
        sound_preparation(saved(tmp_path, "ast"))
