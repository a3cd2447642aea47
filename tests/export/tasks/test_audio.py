"""Preparation of sounds: transformers' own feature extractors are the reference."""

import numpy as np
import pytest
import transformers

from satchel.export.tasks.audio import features, sound_preparation, sounds
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


class Saved:
    """As much of a TaskCheckpoint as is asked for."""

    def __init__(self, folder, config):
        self.folder, self.config = folder, config


def saved(folder, name):
    EXTRACTORS[name]().save_pretrained(folder)
    return Saved(folder, CONFIGS[name[:3]]())


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
    with pytest.raises(CheckpointError, match="how sounds are prepared"):
        sound_preparation(Saved(tmp_path, transformers.ASTConfig()))
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="a way that is not known"):
        sound_preparation(Saved(tmp_path, transformers.Wav2Vec2BertConfig()))
    transformers.WhisperFeatureExtractor(dither=0.1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="noise"):
        sound_preparation(Saved(tmp_path, transformers.WhisperConfig()))
    own = transformers.ASTFeatureExtractor()
    own.padding_value = 3.0
    own.save_pretrained(tmp_path)
    assert sound_preparation(Saved(tmp_path, transformers.ASTConfig())).step.frames == 1024  # it pads by zeros anyway
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="another kind than Wav2Vec2"):
        sound_preparation(Saved(tmp_path, transformers.ASTConfig()))
