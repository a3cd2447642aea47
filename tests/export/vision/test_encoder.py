"""The vision encoder in torch, and the text model that is read beside it, against transformers."""

import numpy as np
import pytest
import torch
from tiny_vision import picture, tiny_llava, tiny_smolvlm, vision_folder

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import multimodal_family
from satchel.export.vision.checkpoint import open_parts
from satchel.export.vision.torch import features
from satchel.runtime.errors import CheckpointError


def parts_of(folder):
    whole = open_checkpoint(folder)
    return open_parts(whole, multimodal_family(whole.config))


def pixels(size, count=2):
    return np.stack([picture(size, size, seed).transpose(2, 0, 1) / 64.0 - 2 for seed in range(count)]).astype("f4")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "text": "llama"},
        {"vision_feature_layer": 1, "projector_hidden_act": "quick_gelu", "multimodal_projector_bias": False},
        {"tower": "siglip", "vision_feature_layer": 2},
    ],
)
def test_llava(tmp_path, options):
    model, parts = tiny_llava(**options), parts_of(vision_folder(tmp_path / "m", **options))
    given = pixels(28)
    wanted = torch.stack(list(model.get_image_features(torch.from_numpy(given)).pooler_output))
    found = features(parts.vision_config, parts.vision, given)
    assert found.shape == (2, parts.vision_config.rows, 64)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_smolvlm(tmp_path):
    model, parts = tiny_smolvlm(), parts_of(vision_folder(tmp_path / "m", "smolvlm"))
    given = pixels(48)
    wanted = model.model.get_image_features(torch.from_numpy(given)[None]).pooler_output[0]
    found = features(parts.vision_config, parts.vision, given)
    np.testing.assert_allclose(found.reshape(-1, 64), wanted.numpy(), atol=1e-5)


def test_what_is_not_supported_is_named(tmp_path):
    for options, says in (
        ({"vision_feature_layer": [-2, -1]}, "vision_feature_layer"),
        ({"tower": "siglip", "vision_feature_layer": -1}, "last layer"),
        ({"tower": "siglip", "vision_feature_select_strategy": "default"}, "vision_feature_select_strategy"),
    ):
        with pytest.raises(CheckpointError, match=says):
            parts_of(vision_folder(tmp_path / says.replace(" ", ""), **options))
