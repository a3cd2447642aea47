"""preprocessor_config.json -> what the runtime does to a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from satchel.export.checkpoint.base import read_json
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import BundleError, CheckpointError
from satchel.runtime.images import Filter, ImagePreparation, Tiles, check_preparation

FILES = ("preprocessor_config.json", "processor_config.json")
FILTERS: tuple[Filter, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's number."""

CLIP: dict[str, Any] = {
    "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3, "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
SIGLIP: dict[str, Any] = {
    "size": {"height": 224, "width": 224}, "resample": 3, "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
SMOLVLM: dict[str, Any] = {
    "size": {"longest_edge": 4 * 364}, "max_image_size": {"longest_edge": 364}, "resample": 1,
    "do_image_splitting": True, "do_center_crop": False, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
DEFAULTS = {
    "CLIPImageProcessor": CLIP,
    "LlavaImageProcessor": CLIP,
    "SiglipImageProcessor": SIGLIP,
    "SmolVLMImageProcessor": SMOLVLM,
    "Idefics3ImageProcessor": SMOLVLM,
}
"""image_processor_type -> what transformers takes where the file says nothing."""
SQUARES = "LlavaImageProcessor"
"""Which pads pictures to squares where `do_pad` says so."""
READ = (
    "size", "crop_size", "resample", "do_center_crop", "do_resize", "do_rescale", "do_normalize", "do_convert_rgb",
    "rescale_factor", "image_mean", "image_std", "do_image_splitting", "max_image_size", "do_pad",
)  # fmt: skip
HARMLESS = (
    "image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "data_format",
    "input_data_format", "return_tensors", "return_row_col_info", "device", "disable_grouping", "image_seq_length",
    "_processor_class", "auto_map", "video_sampling", "default_to_square", "use_fast", "backend", "image_seq_len",
)  # fmt: skip


def read_preparation(given: Mapping[str, Any], config: VisionConfig) -> ImagePreparation:
    """What is to be done to a picture.

    Args:
        given: of the image processor (see processor_options).
        config: of the tower that takes the pixels.

    Raises:
        CheckpointError: the checkpoint does not say, or asks for what is not supported; it is named.
    """
    kind = processor_name(given)
    unknown = {k: v for k, v in given.items() if k not in (*READ, *HARMLESS) and v not in (None, False, {}, [])}
    if unknown:
        raise CheckpointError("the image processor has options that are not known", got=", ".join(sorted(unknown)))
    options = {**DEFAULTS[kind], **{k: v for k, v in given.items() if v is not None}}
    tiled = "max_image_size" in DEFAULTS[kind]
    if options.get("do_pad") and not tiled and kind != SQUARES:
        raise CheckpointError("this image processor is not known to pad", got="do_pad=true", wanted=SQUARES)
    try:
        found = preparation_of(options, config.image_size, tiled)
        check_preparation(found)
    except (KeyError, TypeError, ValueError, IndexError, BundleError) as error:
        raise CheckpointError("the image processor's options are not usable", got=error) from None
    if (found.height, found.width) != (config.image_size, config.image_size):
        raise CheckpointError(
            "the image processor's pictures are not what the vision tower takes", got=(found.height, found.width),
            wanted=(config.image_size, config.image_size),
        )  # fmt: skip
    return found


def processor_name(given: Mapping[str, Any]) -> str:
    """Name of transformers' image processor, a key of DEFAULTS.

    Raises:
        CheckpointError: it is missing, or another.
    """
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if kind not in DEFAULTS:
        raise CheckpointError("this image processor is not supported", got=kind, wanted=", ".join(DEFAULTS))
    return kind


def processor_options(folder: Path, family: MultimodalFamily, config: VisionConfig) -> dict[str, Any]:
    """What a checkpoint says of its image processor, or what its family's program does.

    Raises:
        CheckpointError: nothing is said.
    """
    if family.preprocessor is not None:
        return family.preprocessor(config)
    for name in FILES:
        if (folder / name).is_file():
            found = read_json(folder / name)
            inner = found.get("image_processor", found)
            if isinstance(inner, dict) and ("image_processor_type" in inner or "feature_extractor_type" in inner):
                return inner
    wanted = "preprocessor_config.json with image_processor_type"
    raise CheckpointError("the checkpoint does not say how pictures are prepared", got=folder.name, wanted=wanted)


def preparation_of(options: Mapping[str, Any], image_size: int, tiled: bool = False) -> ImagePreparation:
    """An image processor's options as our steps.

    Args:
        options: under transformers' names.
        image_size: edge of what the model takes, where the options do not say it.
        tiled: whether pictures are cut into tiles.

    Raises:
        KeyError, TypeError, ValueError, IndexError: they are not known.
    """
    normal = options.get("do_normalize") is not False
    mean, std = (options["image_mean"], options["image_std"]) if normal else ((0, 0, 0), (1, 1, 1))
    common: dict[str, Any] = {
        "filter": FILTERS[int(options["resample"])], "mean": tuple(map(float, mean)), "std": tuple(map(float, std)),
        "rescale": 1.0 if options.get("do_rescale") is False else float(options.get("rescale_factor", 1 / 255)),
    }  # fmt: skip
    if tiled:
        return _tiles(options, common)
    if options.get("do_flip_channel_order"):
        common["reverse"] = True
    if options.get("do_pad") and options.get("pad_size"):
        return _padded(options, common)
    if options.get("do_pad"):
        common["square"] = tuple(int(float(m) * 255) for m in options["image_mean"])
    if options.get("do_resize") is False:
        return _unscaled(options, common, image_size)
    height, width, edge = _size(options["size"])
    if options["do_center_crop"]:
        tall, wide = _cropped(options["crop_size"])
        resize = "shortest_edge" if edge else "exact"
        if resize == "exact" and (height, width) != (tall, wide):
            common["scaled"] = (height, width)
        return ImagePreparation(tall, wide, cast(Any, resize), edge, crop=True, **common)
    if edge:
        raise ValueError("pictures of any shape: shortest_edge without a crop")
    return ImagePreparation(height, width, "exact", 0, crop=False, **common)


def _padded(options: Mapping[str, Any], common: Mapping[str, Any]) -> ImagePreparation:
    """Pictures within edges, and padded."""
    size, (tall, wide) = options["size"], _cropped(options["pad_size"])
    edge, longest = int(size["shortest_edge"]), int(size["longest_edge"])
    if options["do_center_crop"] or options.get("do_resize") is False:
        raise ValueError("padding of pictures that are cropped, or not scaled")
    return ImagePreparation(tall, wide, "within", edge, crop=False, longest=longest, **common)


def _unscaled(options: Mapping[str, Any], common: Mapping[str, Any], image_size: int) -> ImagePreparation:
    """Pictures as they are: only their middle, or only those of the tower's size."""
    if not options["do_center_crop"]:
        return ImagePreparation(image_size, image_size, "none", 0, crop=False, **common)
    tall, wide = _cropped(options["crop_size"])
    return ImagePreparation(tall, wide, "none", 0, crop=True, **common)


def _cropped(crop: Any) -> tuple[int, int]:
    return (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))


def _tiles(options: Mapping[str, Any], common: Mapping[str, Any]) -> ImagePreparation:
    longest, edge = int(options["size"]["longest_edge"]), int(options["max_image_size"]["longest_edge"])
    if options.get("do_resize") is False:
        raise ValueError("tiles without do_resize")
    tiles = Tiles(longest, edge, whole=None if options["do_image_splitting"] else True)
    return ImagePreparation(edge, edge, "tiles", 0, crop=False, tiles=tiles, **common)


def _size(size: Any) -> tuple[int, int, int]:
    """(height, width, shortest edge); a number alone is the shortest edge, as CLIP's old files have it."""
    if isinstance(size, int):
        return 0, 0, size
    if "shortest_edge" in size:
        if size.get("longest_edge"):
            raise ValueError("a shortest and a longest edge")
        return 0, 0, int(size["shortest_edge"])
    return int(size["height"]), int(size["width"]), 0
