"""The golden picture through a backend: the pixels that preparation gives, and the features that the encoder gives."""

from __future__ import annotations

import io

import numpy as np

from satchel.runtime.backends.seeing import SeeingBackend
from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.golden_vision import MOST_PIXELS, MOST_ROWS, GoldenVision, spread
from satchel.runtime.images import ImagePreparation, Prepared, prepare


def golden_prepared(golden: GoldenVision, how: ImagePreparation) -> Prepared:
    """The golden picture, prepared here.

    Raises:
        BundleError: it cannot be read, or has another shape than the bundle says.
        MissingPackageError: Pillow is not installed.
    """
    try:
        found = prepare(io.BytesIO(golden.png), how)
    except UsageError as error:
        raise BundleError("the golden picture cannot be read", got=error, hint="export the bundle again") from None
    if found.pixels.shape != golden.shape:
        raise BundleError("the golden picture has another shape", got=found.pixels.shape, wanted=golden.shape)
    return found


def vision_figures(backend: SeeingBackend, golden: GoldenVision, picture: Prepared) -> dict[str, dict[str, float]]:
    """Set -> figures of its features, and the pixels' difference, which is the same for all sets.

    pixels_difference is the largest one of any pixel that is kept; features_error the root mean square of the
    differences over that of the golden features; features_cosine the least cosine of any row.
    """
    pixels = picture.pixels.reshape(-1)[spread(picture.pixels.size, MOST_PIXELS)]
    rows = np.concatenate([backend.see(tile[None])[0] for tile in picture.pixels])
    found = rows[spread(len(rows), MOST_ROWS)]
    difference = float(np.abs(pixels - golden.pixels).max())
    return {
        name: {"pixels_difference": difference, **_figures(found, wanted)} for name, wanted in golden.features.items()
    }


def _figures(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    if found.shape != wanted.shape:
        raise BundleError("features of another shape than the golden ones", got=found.shape, wanted=wanted.shape)
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    error = np.sqrt(np.square(ours - theirs).mean() / max(np.square(theirs).mean(), 1e-30))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = ((ours * theirs).sum(1) / np.maximum(lengths, 1e-30)).min()
    return {
        "features_error": float(np.nan_to_num(error, nan=1e30, posinf=1e30)),
        "features_cosine": float(np.nan_to_num(cosine, nan=-1.0)),
    }
