"""How pictures are prepared for tasks, against transformers' own processors over Pillow, option by option."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_sights
from PIL import Image
from tiny_vision import picture

from satchel.export.tasks.images import images_of
from satchel.runtime.errors import BundleError, CheckpointError, UsageError
from satchel.runtime.images import ImagePreparation, check_preparation, prepare, to_within

SHAPES = [(40, 60), (91, 33), (1, 1), (1, 45), (64, 64)]


class Opened:
    """As much of a TaskCheckpoint as pictures need."""

    def __init__(self, folder, masked=False, size=None):
        self.folder, self.image_size, self.config = folder, None, SimpleNamespace(image_size=size)
        self.model = SimpleNamespace(forward=_masked if masked else _plain)


def _masked(pixel_values, pixel_mask):
    pass


def _plain(pixel_values):
    pass


SMALL = {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
SHORT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
EXACT = {"size": {"height": 32, "width": 48}}
EDGES = {"size": {"shortest_edge": 32, "longest_edge": 50}}
CASES = {  # module, name, options; what is fixed for tasks over places
    "deit": (("deit", "DeiT", SMALL), None),
    "mobilenet v1": (("mobilenet_v1", "MobileNetV1", SHORT), None),
    "mobilenet v2": (("mobilenet_v2", "MobileNetV2", SHORT), None),
    "mobilenet v2, whole": (
        ("mobilenet_v2", "MobileNetV2", SHORT), {"size": {"height": 32, "width": 32}, "do_center_crop": False},
    ),
    "convnext": (("convnext", "ConvNext", {"size": {"shortest_edge": 32}}), None),
    "convnext, large": (("convnext", "ConvNext", {"size": {"shortest_edge": 384}}), None),
    "levit": (("levit", "Levit", SHORT), None),
    "poolformer": (("poolformer", "PoolFormer", SHORT), None),
    "efficientnet": (("efficientnet", "EfficientNet", EXACT | {"rescale_offset": True}), None),
    "efficientnet, once": (("efficientnet", "EfficientNet", EXACT | {"include_top": False}), None),
    "mobilevit": (("mobilevit", "MobileViT", SHORT), None),
    "beit": (("beit", "Beit", SMALL | {"do_center_crop": True}), None),
    "vit": (("vit", "ViT", EXACT), None),
    "siglip": (("siglip", "Siglip", EXACT), None),
    "segformer": (("segformer", "Segformer", EXACT), {}),
    "dpt": (
        ("dpt", "DPT", {"size": {"height": 42, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}),
        {"keep_aspect_ratio": False},
    ),
    "yolos": (("yolos", "Yolos", EDGES), {"size": {"height": 32, "width": 48}, "do_pad": False}),
    "rt-detr": (("rt_detr", "RTDetr", EXACT), {}),
    "detr": (("detr", "Detr", EDGES), {"pad_size": {"height": 64, "width": 64}}),
    "conditional detr": (("conditional_detr", "ConditionalDetr", EDGES), {"pad_size": {"height": 64, "width": 64}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_pixels_and_masks_are_those_of_the_processor(case, tmp_path):
    (module, name, options), places = CASES[case]
    processor = tiny_sights.processor(module, name, **options)
    processor.save_pretrained(tmp_path)
    masked = "detr" in case and case != "rt-detr"
    images = images_of(Opened(tmp_path, masked, [32, 48]), places=places is not None)
    for height, width in SHAPES:
        given = Image.fromarray(picture(height, width))
        wanted = processor(images=[given], return_tensors="np", **(places or {}))
        found = prepare(given, images.how)
        np.testing.assert_allclose(found.pixels, wanted["pixel_values"], rtol=1e-5, atol=1e-5)
        assert found.original == (height, width)
        if masked:
            assert images.step["mask"] == "pixel_mask"
            np.testing.assert_array_equal(found.mask, wanted["pixel_mask"])
    assert {name: list(value.shape[1:]) for name, value in images.examples[0].items()} == {
        name: list(found.pixels.shape[1:] if name == "pixel_values" else found.mask.shape[1:]) for name in images.inputs
    }


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("perceiver", "Perceiver", {}), ("glpn", "GLPN", {}), ("textnet", "TextNet", {}),
        ("vit", "ViT", {"size": {"shortest_edge": 40}}),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(module, name, options, tmp_path):
    tiny_sights.processor(module, name, **options).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="pictures"):
        images_of(Opened(tmp_path), places=name == "GLPN")


def test_thin_pictures():
    how = ImagePreparation(64, 64, "within", 32, "bilinear", False, 1 / 255, (0, 0, 0), (1, 1, 1), longest=50)
    check_preparation(how)
    thin = prepare(np.full((1, 9000, 3), 255, np.uint8), how)
    assert thin.content == (1, 50) == to_within((1, 9000), 32, 50, 64)
    assert thin.pixels[0, :, 0, :50].min() == 1 and thin.pixels[0, :, 1:].max() == 0
    short = ImagePreparation(32, 32, "shortest_edge", 512, "bilinear", True, 1 / 255, (0, 0, 0), (1, 1, 1))
    with pytest.raises(UsageError, match="too long"):
        prepare(np.zeros((1, 9000, 3), np.uint8), short)


@pytest.mark.parametrize("wrong", [{"longest": None}, {"longest": 65}, {"edge": 0}, {"scaled": (3, 3)}])
def test_impossible_preparations(wrong):
    given = {"height": 64, "width": 64, "resize": "within", "edge": 32, "longest": 50, "filter": "bilinear"} | wrong
    with pytest.raises(BundleError):
        check_preparation(ImagePreparation(crop=False, rescale=1.0, mean=(0, 0, 0), std=(1, 1, 1), **given))
