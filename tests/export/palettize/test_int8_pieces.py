"""Embeddings are rounded some rows at a time; how many must not show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.export.palettize import fit
from satchel.export.palettize.fit import int8_pieces, int8_rows


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 40), st.floats(1e-3, 1e3), st.booleans())
def test_pieces_are_as_good_as_the_whole(seed, rows, columns, size, with_zeros):
    random = np.random.default_rng(seed)
    w = (random.standard_normal((rows, columns)) * size * random.uniform(0.1, 10, (rows, 1))).astype(np.float32)
    if with_zeros:
        w[:: max(1, rows // 3)] = 0
    asked = []

    def read(part):
        asked.append(part.stop - part.start)
        return w[part]

    whole = int8_rows(w)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "WEIGHTS_A_STEP", 3 * columns)
        pieces = int8_pieces(read, w.shape)
    assert max(asked) <= 3
    assert sum(asked) == 2 * rows
    for part in ("index", "lut", "exponent", "scale"):
        np.testing.assert_array_equal(getattr(pieces, part), getattr(whole, part))
    # Within half a step of each row, and what fp16 scales round by 127 steps away. Scales of one matrix differ by a
    # factor of 2**15 at most.
    step = np.abs(w).max(1, keepdims=True) / 127
    step = np.maximum(step, step.max() * 2.0**-14)
    assert (np.abs(pieces.dequantize() - w) <= step * (0.5 + 127 * 2**-10) + 2.0**-15).all()
