"""Configurations of published models that are no decoders, and how many parameters each is known to have.

Every configuration is that of the model's config.json on the Hugging Face hub, from memory; what is left out are
transformers' defaults. That all fit together is held by the count of parameters, of which `counted` says who states it
(tests/benchmarks/test_architectures.py). Preparation is that of the model's preprocessor_config.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Options = dict[str, Any]
HUB = "the model's page on the hub"
TORCHVISION = "torchvision's table of weights"


@dataclass(frozen=True)
class Architecture:
    """One published model.

    Attributes:
        published: its name on the hub, or in torchvision.
        parameters: as counted.
        counted: by whom.
        task: of `satchel export`; "" for torchvision's, which go through satchel.export_module.
        kind: class of transformers (or function of torchvision) that makes it.
        config: of transformers, with "model_type".
        images: preprocessor_config.json.
        tokens: special tokens by role, for a tokenizer that is made; {} for a model that takes no text.
        classes: axis of the first output whose largest entry is the answer; None where there is none.
    """

    published: str
    parameters: int
    counted: str
    task: str
    kind: str
    config: Options
    images: Options = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    classes: int | None = -1


HALF, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIPS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
BERT_TOKENS = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
CLIP_TOKENS = {"unk": "<|unk|>", "pad": "<|pad|>", "bos": "<|startoftext|>", "eos": "<|endoftext|>"}
"""The end comes last: CLIP finds it as the highest id."""


def _images(kind: str, size: Options, moments: tuple[list[float], list[float]], **more: Any) -> Options:
    mean, std = moments
    return {
        "image_processor_type": kind, "do_resize": True, "size": size, "resample": 2, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": std, **more,
    }  # fmt: skip


def _square(edge: int) -> Options:
    return {"height": edge, "width": edge}


def _cropped(edge: int, crop: int) -> Options:
    return {"size": {"shortest_edge": edge}, "crop_size": _square(crop), "do_center_crop": True}


def _labels(count: int) -> Options:
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(count)},
        "label2id": {f"LABEL_{i}": i for i in range(count)},
    }


def _deit(hidden: int, heads: int) -> Options:
    return {
        "model_type": "deit", "hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": 4 * hidden,
        "num_hidden_layers": 12, "image_size": 224, "patch_size": 16, **_labels(1000),
    }  # fmt: skip


def _distilled(size: str, parameters: int, hidden: int, heads: int) -> Architecture:
    return Architecture(
        f"facebook/deit-{size}-distilled-patch16-224", parameters, HUB, "image-classification",
        "DeiTForImageClassificationWithTeacher", _deit(hidden, heads),
        _images("DeiTImageProcessor", _square(256), IMAGENET, crop_size=_square(224), do_center_crop=True, resample=3),
    )  # fmt: skip


def _tower(**options: Any) -> Options:
    return {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        **options,
    }


ARCHITECTURES: dict[str, Architecture] = {
    "mobilenet-v3-large": Architecture(
        "torchvision mobilenet_v3_large", 5_483_032, TORCHVISION, "", "mobilenet_v3_large", {},
        _images("", _square(224), IMAGENET),
    ),
    "mobilenet-v2": Architecture(
        "google/mobilenet_v2_1.0_224", 3_506_153, f"{TORCHVISION}, and one class more", "image-classification",
        "MobileNetV2ForImageClassification",
        {"model_type": "mobilenet_v2", "depth_multiplier": 1.0, "image_size": 224, "hidden_act": "relu6",
         "tf_padding": True, "layer_norm_eps": 0.001, "classifier_dropout_prob": 0.2, **_labels(1001)},
        _images("MobileNetV2ImageProcessor", {"shortest_edge": 256}, HALF, crop_size=_square(224), do_center_crop=True),
    ),
    "segformer-b0": Architecture(
        "nvidia/segformer-b0-finetuned-ade-512-512", 3_752_694, HUB, "semantic-segmentation",
        "SegformerForSemanticSegmentation",
        {"model_type": "segformer", "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2],
         "sr_ratios": [8, 4, 2, 1], "num_attention_heads": [1, 2, 5, 8], "decoder_hidden_size": 256,
         "image_size": 224, **_labels(150)},
        _images("SegformerImageProcessor", _square(512), IMAGENET, do_reduce_labels=True),
        classes=1,
    ),
    "deit-tiny-distilled": _distilled("tiny", 5_910_800, 192, 3),
    "yolos-tiny": Architecture(
        "hustvl/yolos-tiny", 6_488_736, HUB, "object-detection", "YolosForObjectDetection",
        {"model_type": "yolos", "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768,
         "num_hidden_layers": 12, "image_size": [800, 1333], "patch_size": 16, "num_detection_tokens": 100,
         "use_mid_position_embeddings": False, **_labels(91)},
        _images("YolosImageProcessor", {"shortest_edge": 512, "longest_edge": 864}, IMAGENET, do_pad=True),
    ),
    "deit-small-distilled": _distilled("small", 22_436_432, 384, 6),
    "resnet-50": Architecture(
        "microsoft/resnet-50", 25_557_032, f"{HUB}, {TORCHVISION}", "image-classification",
        "ResNetForImageClassification",
        {"model_type": "resnet", "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048],
         "depths": [3, 4, 6, 3], "layer_type": "bottleneck", **_labels(1000)},
        _images("ConvNextImageProcessor", {"shortest_edge": 224}, IMAGENET, crop_pct=0.875, resample=3),
    ),
    "depth-anything-small": Architecture(
        "LiheYoung/depth-anything-small-hf", 24_785_089, HUB, "depth-estimation", "DepthAnythingForDepthEstimation",
        {"model_type": "depth_anything", "reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384],
         "fusion_hidden_size": 64, "patch_size": 14, "reassemble_factors": [4, 2, 1, 0.5], "head_hidden_size": 32,
         "backbone_config": {
             "model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518,
             "patch_size": 14, "out_features": ["stage9", "stage10", "stage11", "stage12"],
             "apply_layernorm": True, "reshape_hidden_states": False,
         }},
        _images("DPTImageProcessor", _square(518), IMAGENET, ensure_multiple_of=14, keep_aspect_ratio=True,
                resample=3, do_pad=False),
        classes=None,
    ),
    "whisper-tiny": Architecture(
        "openai/whisper-tiny", 37_760_640, HUB, "automatic-speech-recognition", "WhisperForConditionalGeneration",
        {"model_type": "whisper", "d_model": 384, "encoder_layers": 4, "decoder_layers": 4,
         "encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536,
         "decoder_ffn_dim": 1536, "vocab_size": 51865, "num_mel_bins": 80, "max_source_positions": 1500,
         "max_target_positions": 448},
    ),
    "detr-resnet-50": Architecture(
        "facebook/detr-resnet-50", 41_524_768,
        "facebookresearch/detr, which counts 41,302,368 that are trained, and 222,400 that are not",
        "object-detection", "DetrForObjectDetection",
        {"model_type": "detr", "use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False,
         "backbone_config": {"model_type": "resnet", "out_features": ["stage4"]}, "d_model": 256,
         "encoder_layers": 6, "decoder_layers": 6, "num_queries": 100, **_labels(91)},
        _images("DetrImageProcessor", {"shortest_edge": 800, "longest_edge": 1333}, IMAGENET, do_pad=True),
    ),
    "distilbert": Architecture(
        "distilbert/distilbert-base-uncased", 66_985_530, HUB, "fill-mask", "DistilBertForMaskedLM",
        {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "hidden_dim": 3072, "n_layers": 6,
         "n_heads": 12, "max_position_embeddings": 512},
        tokens=BERT_TOKENS,
    ),
    "vit-base-patch16-224": Architecture(
        "google/vit-base-patch16-224", 86_567_656, HUB, "image-classification", "ViTForImageClassification",
        {"model_type": "vit", **_tower(image_size=224, patch_size=16), **_labels(1000)},
        _images("ViTImageProcessor", _square(224), HALF),
    ),
    "wav2vec2-base": Architecture(
        "facebook/wav2vec2-base-960h", 94_396_320, HUB, "automatic-speech-recognition", "Wav2Vec2ForCTC",
        {"model_type": "wav2vec2", **_tower(), "vocab_size": 32, "feat_extract_norm": "group",
         "do_stable_layer_norm": False, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16},
    ),
    "bert-base": Architecture(
        "google-bert/bert-base-uncased", 109_514_298, HUB, "fill-mask", "BertForMaskedLM",
        {"model_type": "bert", **_tower(vocab_size=30522, max_position_embeddings=512)},
        tokens=BERT_TOKENS,
    ),
    "modernbert-base": Architecture(
        "answerdotai/ModernBERT-base", 149_655_232, HUB, "fill-mask", "ModernBertForMaskedLM",
        {"model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152,
         "num_hidden_layers": 22, "num_attention_heads": 12, "max_position_embeddings": 8192,
         "global_attn_every_n_layers": 3, "local_attention": 128},
        tokens=BERT_TOKENS,
    ),
    "clip-vit-base-patch32": Architecture(
        "openai/clip-vit-base-patch32", 151_277_313, HUB, "zero-shot-image-classification", "CLIPModel",
        {"model_type": "clip", "projection_dim": 512,
         "text_config": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
                         "num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77,
                         "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1},
         "vision_config": _tower(image_size=224, patch_size=32)},
        _images("CLIPImageProcessor", {"shortest_edge": 224}, CLIPS, crop_size=_square(224), do_center_crop=True,
                resample=3),
        CLIP_TOKENS, classes=None,
    ),
    "siglip-base-patch16-224": Architecture(
        "google/siglip-base-patch16-224", 203_155_970, HUB, "zero-shot-image-classification", "SiglipModel",
        {"model_type": "siglip", "text_config": _tower(vocab_size=32000, max_position_embeddings=64),
         "vision_config": _tower(image_size=224, patch_size=16)},
        _images("SiglipImageProcessor", _square(224), HALF, resample=3),
        {"unk": "<unk>", "pad": "</s>", "eos": "</s>"}, classes=None,
    ),
}  # fmt: skip
"""By name, the smallest first."""
