"""Scaling of maps, against torch's own, and how maps are written."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from satchel.runtime.errors import OutputError, UsageError
from satchel.runtime.resampling import bicubic, bilinear
from satchel.runtime.tasks.maps import colors, write_maps
from satchel.runtime.tasks.segments import STRIP, classes_of

EDGE = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(EDGE, EDGE, EDGE, EDGE, st.integers(0, 2**31))
def test_scaling_is_torchs(height, width, tall, wide, seed):
    values = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    for mode, ours in (("bilinear", bilinear), ("bicubic", bicubic)):
        given = torch.from_numpy(values)[None]
        wanted = torch.nn.functional.interpolate(given, size=(tall, wide), mode=mode, align_corners=False)[0]
        np.testing.assert_allclose(ours(values, tall, wide), wanted, atol=1e-4)


def test_strips_are_seams_nobody_sees():
    values = np.random.default_rng(0).normal(size=(300, 5, 4)).astype(np.float32)
    height, width = 1200, 64
    assert 300 * width * height > STRIP  # so that there are several
    wanted = torch.nn.functional.interpolate(torch.from_numpy(values)[None], size=(height, width), mode="bilinear")
    found = classes_of(values, height, width)
    assert found.dtype == np.uint16 and np.mean(found == wanted[0].argmax(0).numpy()) > 0.999


def test_maps_are_written(tmp_path):
    classes = np.array([[0, 1, 2], [255, 3, 3]], np.uint8)
    depth = np.array([[0.5, 1.0], [1.5, 2.5]], np.float32)
    assert write_maps(tmp_path / "map.png", [{"map": classes}]) == [tmp_path / "map.png"]
    with Image.open(tmp_path / "map.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), classes)
        assert len({image.getpixel((x, 0)) for x in range(3)}) == 3
    assert len({tuple(color) for color in colors()}) == 256
    names = write_maps(tmp_path / "both.PNG", [{"map": depth}, {"map": np.ones((2, 2), np.float32)}])
    assert [name.name for name in names] == ["both-1.PNG", "both-2.PNG"]
    with Image.open(names[0]) as image:
        assert np.array_equal(np.asarray(image), [[0, 16384], [32768, 65535]])
    (raw,) = write_maps(tmp_path / "map.npy", [{"map": depth}])
    assert np.array_equal(np.load(raw, allow_pickle=False), depth)
    wide = np.full((2, 2), 300, np.uint16)
    (deep,) = write_maps(tmp_path / "wide.png", [{"map": wide}])
    with Image.open(deep) as image:
        assert np.array_equal(np.asarray(image), wide)
    with pytest.raises(UsageError, match="kind of file"):
        write_maps(tmp_path / "map.jpg", [{"map": classes}])
    with pytest.raises(OutputError, match="no such folder"):
        write_maps(tmp_path / "none" / "map.png", [{"map": classes}])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_maps(tmp_path / "folder.png", [{"map": classes}])
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]
