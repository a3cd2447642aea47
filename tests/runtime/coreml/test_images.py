"""Pictures of every color space and form, to the program's tensor and back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from satchel.runtime.coreml.features import COLOR_SPACES, Feature
from satchel.runtime.coreml.images import to_picture, to_tensor

COLORS = st.sampled_from(sorted(COLOR_SPACES.values()))
SIZES = st.integers(1, 5)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(COLOR_SPACES.values())),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([3, 4]),
    st.data(),
)
def test_there_and_back(color: str, height: int, width: int, rank: int, data: st.DataObject) -> None:
    gray = color.startswith("GRAYSCALE")
    shape = (height, width) if gray else (height, width, 3)
    feature = Feature("x", "image", shape, color=color)
    half = color == "GRAYSCALE_FLOAT16"
    elements = st.floats(-1e4, 1e4, width=16) if half else st.integers(0, 255)
    picture = data.draw(hnp.arrays(np.float32 if half else np.uint8, shape, elements=elements))
    tensor = to_tensor(feature, picture, rank)
    assert tensor.shape == (1, *tensor.shape[-3:])[-rank:]
    assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
    channels = tensor.reshape(-1, height, width)
    assert len(channels) == (1 if gray else 3)
    if not gray:
        red, blue = (2, 0) if color == "BGR" else (0, 2)
        np.testing.assert_array_equal(channels[red], picture[..., 0])
        np.testing.assert_array_equal(channels[blue], picture[..., 2])
    np.testing.assert_array_equal(to_picture(feature, tensor), picture)
    np.testing.assert_array_equal(to_tensor(feature, channels[None], rank), tensor)
