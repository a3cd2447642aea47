"""Pictures: prepared as transformers' own processors over Pillow do it, and refused where they are none."""

import numpy as np
import pytest
from PIL import Image
from tiny_vision import picture
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from satchel.export.families.llava import LLAVA
from satchel.export.vision.preprocess import processor_options, read_preparation
from satchel.runtime.errors import BundleError, CheckpointError, UsageError
from satchel.runtime.images import Tiles, most_tiles, prepare

SIZES = [(28, 28), (60, 91), (300, 45), (7, 5), (47, 48), (100, 100)]


class Tower:
    def __init__(self, size):
        self.image_size = size


def preparation(processor, folder, size):
    processor.save_pretrained(folder)
    return read(folder, size)


def read(folder, size):
    return read_preparation(processor_options(folder, LLAVA, Tower(size)), Tower(size))


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), 32),
        (CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 33, "width": 33}, resample=2), 33),
        (SiglipImageProcessorPil(size={"height": 30, "width": 30}), 30),
        (SmolVLMImageProcessorPil(size={"longest_edge": 120}, max_image_size={"longest_edge": 40}), 40),
        (
            SmolVLMImageProcessorPil(
                size={"longest_edge": 120}, max_image_size={"longest_edge": 40}, do_image_splitting=False
            ),
            40,
        ),
        (LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": 36}, crop_size={"height": 36, "width": 36}), 36),
        (CLIPImageProcessorPil(do_resize=False, crop_size={"height": 40, "width": 40}), 40),
        (SiglipImageProcessorPil(size={"height": 30, "width": 30}, do_rescale=False), 30),
        (SiglipImageProcessorPil(size={"height": 30, "width": 30}, do_normalize=False), 30),
    ],
)
def test_pixels_are_those_of_transformers(tmp_path, processor, size):
    how = preparation(processor, tmp_path, size)
    for height, width in SIZES:
        given = Image.fromarray(picture(height, width))
        options = {"return_row_col_info": True} if how.tiles else {}
        theirs = processor(given, return_tensors="np", **options)
        wanted = theirs["pixel_values"][0] if how.tiles else theirs["pixel_values"]
        ours = prepare(given, how)
        assert ours.pixels.dtype == np.float32
        np.testing.assert_allclose(ours.pixels, wanted, rtol=1e-6, atol=1e-6)
        assert len(ours.pixels) <= most_tiles(how)
        if how.tiles:
            assert (ours.rows, ours.columns) == (theirs["rows"][0][0], theirs["cols"][0][0])


def test_modes_and_orientation(tmp_path):
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    how = preparation(processor, tmp_path, 16)
    color = Image.fromarray(picture(20, 30))
    for mode in ("L", "P", "RGBA", "CMYK"):
        given = color.convert(mode)
        wanted = processor(given, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(prepare(given, how).pixels, wanted, atol=1e-6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    color.save(tmp_path / "turned.png", exif=exif)
    upright = prepare(color.transpose(Image.Transpose.ROTATE_270), how)
    np.testing.assert_array_equal(prepare(tmp_path / "turned.png", how).pixels, upright.pixels)


def test_bad_pictures_are_named(tmp_path):
    how = preparation(SiglipImageProcessorPil(size={"height": 30, "width": 30}), tmp_path, 30)
    (tmp_path / "text.png").write_bytes(b"no picture")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    for bad in (tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "missing.png", np.zeros((4, 4)), 7):
        with pytest.raises(UsageError, match="picture"):
            prepare(bad, how)
    with pytest.raises(UsageError, match="too large"):
        prepare(Image.new("L", (1, 20_000)), how)


def test_a_picture_of_another_size_than_an_encoder_takes(tmp_path):
    """Where nothing scales it."""
    how = preparation(SiglipImageProcessorPil(size={"height": 30, "width": 30}, do_resize=False), tmp_path, 30)
    given = picture(30, 30)
    wanted = SiglipImageProcessorPil(do_resize=False)(Image.fromarray(given), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(prepare(given, how).pixels, wanted, atol=1e-6)
    with pytest.raises(UsageError, match="another size"):
        prepare(picture(30, 31), how)


def test_bad_preparations_are_named(tmp_path):
    good = SiglipImageProcessorPil(size={"height": 30, "width": 30})
    for options, says in (
        ({"size": {"height": 30}}, "not usable"),
        ({"resample": 9}, "not usable"),
        ({"image_std": [0.5, 0.0, 0.5]}, "not usable"),
        ({"do_pad": True}, "pad"),
        ({"size": {"height": 20, "width": 20}}, "vision tower"),
        ({"unheard_of": 3}, "unheard_of"),
        ({"image_processor_type": "OtherImageProcessor"}, "OtherImageProcessor"),
    ):
        good.save_pretrained(tmp_path)
        import json

        path = tmp_path / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | options))
        with pytest.raises(CheckpointError, match=says):
            read(tmp_path, 30)
    path.unlink()
    with pytest.raises(CheckpointError, match="does not say"):
        read(tmp_path, 30)


def test_a_bundle_cannot_ask_for_the_impossible(tmp_path):
    import dataclasses

    from satchel.runtime.images import check_preparation

    how = preparation(SiglipImageProcessorPil(size={"height": 30, "width": 30}), tmp_path, 30)
    for change in (
        {"square": (0, 0, 256)},
        {"height": 0},
        {"std": (0.5, 0.5)},
        {"tiles": Tiles(90, 30)},
        {"width": 1 << 20},
    ):
        with pytest.raises(BundleError):
            check_preparation(dataclasses.replace(how, **change))
