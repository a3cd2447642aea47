"""A model that sees, read from its files a piece at a time: the same numbers as loaded, and the same bundle."""

import numpy as np
import pytest
from tiny_moondream import moondream_folder, tiny_moondream
from tiny_vision import vision_folder

import satchel
from satchel.export import memory
from satchel.export.job import open_model
from satchel.export.memory import plan_memory
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.reference import SeeingReference
from satchel.runtime.errors import UsageError
from satchel.runtime.parity import validate


class Rounded:
    """Matrices that differ from the original ones."""

    def __init__(self, model):
        self._model = model

    def matrix(self, name):
        found = self._model.vision.tensors if name.startswith("vision.") else self._model.tensors
        return PlainTensor((0.9 * found.read(name)).astype(np.float16))


def folders(root):
    yield vision_folder(root / "clip")
    options = {"tower": "siglip", "text": "llama", "tie_word_embeddings": True, "vision_feature_layer": 2}
    yield vision_folder(root / "siglip", **options)
    yield vision_folder(root / "smolvlm", "smolvlm")
    yield moondream_folder(root / "moondream", tiny_moondream())


def test_logits_and_features_are_those_of_a_loaded_model(tmp_path):
    """With the original weights, and with others; the tower's too, of which some parameters have no part in it."""
    for folder in folders(tmp_path):
        model = open_model(folder)
        vision = model.vision
        ids = [5, *[vision.tokens.id] * (vision.tokens.rows * len(vision.picture.prepared.pixels)), 7, 8]
        loaded, streamed = (
            SeeingReference(folder, vision.picture, vision.tokens.id, [ids], streamed=s) for s in (False, True)
        )
        before = loaded.logits(ids)
        sequences = [[9, 4, 4], [*ids, 11], [3, 1, 200, 17]]  # of which one shows the picture
        for reference in (loaded, streamed):
            for sequence, rows in zip(sequences, reference.batch_logits(sequences), strict=True):
                np.testing.assert_allclose(rows, loaded.logits(sequence), atol=1e-4)
            together, _ = reference.continuations([sequences[0], ids], 3)
            assert together == [loaded.greedy(sequences[0], 3), loaded.greedy(ids, 3)]
        for weights in (None, Rounded(model)):
            for reference in (loaded, streamed) if weights else ():
                reference.load_weights(weights)
            np.testing.assert_allclose(streamed.logits(ids), loaded.logits(ids), atol=1e-5)
            np.testing.assert_allclose(streamed.features().numpy(), loaded.features().numpy(), atol=1e-5)
        assert np.abs(before - loaded.logits(ids)).max() > 0.01
        streamed.close()


def test_the_same_bundle(tmp_path, monkeypatch):
    """But for golden numbers, whose last bits may differ; of weights that no generated text calibrates."""
    folder, files = vision_folder(tmp_path / "m"), []
    for name, ways in (("loaded", memory.WAYS), ("streamed", ((True, 1),))):
        monkeypatch.setattr(memory, "WAYS", ways)
        options = {"format": "onnx", "context": 256, "effort": "low", "output": tmp_path / name}
        (bundle,) = satchel.export(folder, "pixel-9", weights="fp32", **options)
        files.append({f.path: f.sha256 for f in bundle.manifest.files if not f.path.endswith(".f32")})
    assert files[0] == files[1]
    report = validate(bundle)
    assert report.passed, report.to_json()["failures"]


CLIP = {
    "image_size": 336, "patch_size": 14, "channels": 3, "hidden_size": 1024, "layers": 23, "heads": 16,
    "intermediate_size": 4096, "norm_eps": 1e-5, "activation": "quick_gelu", "class_token": True, "keeps_class": False,
    "patch_bias": False, "pre_norm": True, "post_norm": False, "shuffle": 1, "projector": (2048, 2048),
    "projector_bias": True,
}  # fmt: skip


def test_the_tower_counts_in_memory():
    """Phi-1.5 behind CLIP ViT-L/336: loaded, its 300 million weights are 1.2 GB more; streamed, its activations."""
    from satchel.export.families.phi import configure

    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32}
    config = configure({"model_type": "phi", "vocab_size": 51200, "max_position_embeddings": 2048, **sizes})
    tower = VisionConfig(family="llava", **CLIP)
    weights = sum(rows * columns for rows, columns in tower.matrix_shapes().values())
    assert 295e6 < weights < 305e6
    alone, seeing = (plan_memory(config, 10**11, tower=t, shown=576 * bool(t)) for t in (None, tower))
    assert not seeing.streamed
    assert seeing.bytes - alone.bytes >= 4 * weights
    assert plan_memory(config, alone.bytes, tower=tower, shown=576).streamed
    with pytest.raises(UsageError, match="--max-memory"):
        plan_memory(config, 10**9, tower=tower, shown=576)
