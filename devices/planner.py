"""A device profile and the shape of a model -> a plan: which ops, weights and sizes, each with its reason.

Sources refer to docs/: neural-engine.md and arm-cpu.md (rules, each with its source and confidence) and choices.md
(what was tried here).
"""

from __future__ import annotations

from collections.abc import Iterator

from satchel.devices.errors import PlanError
from satchel.devices.plan import Choice, ModelShape, Plan
from satchel.devices.profile import DeviceProfile

FORMATS = ("coreml", "onnx", "executorch")
WEIGHTS = ("palette", "int4", "int8", "fp16", "fp32", "source")
BLOCKWISE = ("int4", "source")
"""Schemes with a scale for each block of a row."""
DEFAULT_CONTEXT = 1024
PREFILL = 64
WIDEST_KV = 0.08
"""Share of the weights up to which k_proj and v_proj are kept at 8 bits beside a palette."""
BY_LOSS = Choice(
    "kv_weights", "by_loss", "k and v lose most, as their measured losses show", "docs/quantization.md", ("int8",)
)
LARGEST_ENGINE_FILE = 2**31
"""Bytes of one weight file that the Neural Engine reads, by coremltools PR 2593."""
ENGINE = "neural-engine rule"
ARM = "arm-cpu"


def make_plan(
    profile: DeviceProfile,
    shape: ModelShape,
    *,
    format: str | None = None,
    weights: str | None = None,
    context: int | None = None,
    by_loss: bool = False,
) -> Plan:
    """Chooses the ops, the weights and the sizes for a model on a device.

    Args:
        profile: the device.
        shape: the model.
        format: overrides the profile's first format.
        weights: overrides the scheme that the device would get.
        context: tokens that the cache holds; by default 1024, or what the model was trained for if that is less.
        by_loss: whether the bits of each linear will be chosen by its measured loss, k and v among them.

    Raises:
        PlanError: the device cannot run the format or the scheme, or the context is out of range.
    """
    chosen = format or profile.formats[0]
    if chosen not in FORMATS:
        raise PlanError("unknown format", got=chosen, wanted=", ".join(FORMATS))
    if chosen not in profile.formats:
        raise PlanError(
            f"{profile.title} cannot run {chosen}",
            got=chosen,
            wanted=", ".join(profile.formats),
            hint=_why_not(profile, chosen),
        )
    if weights is not None and weights not in WEIGHTS:
        raise PlanError("unknown weight scheme", got=weights, wanted=", ".join(WEIGHTS))
    length = _context(shape, context)
    choices = {"coreml": _coreml, "onnx": _onnx, "executorch": _executorch}[chosen](profile, shape, weights)
    prefill = min(PREFILL, length) if chosen == "coreml" else 0
    settled = (BY_LOSS if by_loss and c.role == "kv_weights" and c.value == "int8" else c for c in choices)
    return Plan(profile.name, chosen, length, prefill, tuple(settled))


def _why_not(profile: DeviceProfile, format: str) -> str:
    if format == "coreml":
        return f"Core ML exists on Apple's systems only, and this device runs {profile.os}"
    return f"the profile of {profile.name} does not list it; copy the profile and add it if you know that it runs there"


def _context(shape: ModelShape, asked: int | None) -> int:
    """The context length: what was asked for, in range, else the default."""
    if asked is None:
        return min(DEFAULT_CONTEXT, shape.max_position)
    if not 16 <= asked <= shape.max_position:
        raise PlanError(
            "context length out of range",
            got=asked,
            wanted=f"16 to {shape.max_position}, what the model was trained for",
        )
    return asked


def _weights(profile: DeviceProfile, format: str, asked: str | None) -> Choice:
    """The weight scheme: asked for, else the profile's, else the palette."""
    if asked is not None:
        return Choice("weights", asked, "asked for", "user")
    if format in profile.weights:
        return Choice(
            "weights",
            profile.weights[format],
            profile.sources.get("weights", "the profile prefers it"),
            f"profile {profile.name}",
            ("palette",),
        )
    return Choice("weights", "palette", "4-bit codes with a LUT, the same in every format", "choices: one palette")


def _kv_weights(shape: ModelShape, weights: Choice) -> Choice:
    """The same for every format, so that all formats carry the same palette."""
    share = 2 * shape.layers * shape.kv_heads * shape.head_dim * shape.hidden_size / shape.parameters
    if weights.value == "palette" and share <= WIDEST_KV:
        reason = f"{share:.0%} of the weights and much of the loss: SmolLM2's KL fell from 0.25 to 0.20"
        return Choice("kv_weights", "int8", reason, "choices: k and v at 8 bits", ("as_linear",))
    reason = f"k and v are {share:.0%} of the weights" if weights.value == "palette" else "only a palette needs more"
    return Choice("kv_weights", "as_linear", reason, "choices: k and v at 8 bits", ("int8",))


def _coreml(profile: DeviceProfile, shape: ModelShape, asked: str | None) -> Iterator[Choice]:
    """Choices for Core ML: the engine's layout where there is one, plain ops for the GPU and CPU elsewhere."""
    weights = _weights(profile, "coreml", asked)
    ios = profile.os_version if profile.os == "ios" else profile.os_version + 3  # macOS 15 is of iOS 18's year
    stateful = ios >= 18
    fitting = _weight_bytes(shape, weights.value) <= LARGEST_ENGINE_FILE
    engine = bool(profile.engine) and weights.value not in (*BLOCKWISE, "fp32") and fitting
    if weights.value in BLOCKWISE and not stateful:
        raise PlanError(
            f"{weights.value} weights, with a scale for each block, need constexpr_blockwise_shift_scale",
            got=f"iOS {ios}",
            wanted="iOS 18",
            hint="--weights palette",
        )
    yield weights
    yield _kv_weights(shape, weights)
    yield Choice(
        "lut_groups",
        "tensor",
        "grouped LUTs are reported 19 to 47% slower on the engine, for little quality",
        "choices: one palette; neural-engine rule 16",
        ("rows16",),
    )
    yield Choice("scale_dtype", "float16", "the program computes in fp16", f"{ENGINE} 5")
    yield Choice(
        "target",
        f"iOS{min(max(ios, 16), 18)}",
        f"the newest opset that {profile.title} surely has",
        f"profile {profile.name}",
    )
    if engine:
        yield Choice(
            "layout", "channels_first", "(B, C, 1, S) pads nothing on the last axis", f"{ENGINE} 1", ("plain",)
        )
        yield Choice("linear", "conv1x1", "the engine prefers a 1x1 convolution", f"{ENGINE} 7", ("linear",))
        yield Choice(
            "attention",
            "per_head",
            "the fused op gave infinities on the engine under iOS 26",
            f"{ENGINE} 9",
            ("fused_sdpa",),
        )
        yield Choice("compute", "cpuAndNeuralEngine", f"engine {profile.engine}", f"{ENGINE} 25", ("cpuAndGPU",))
    else:
        why = "scales by block and fp32 are not for the engine" if fitting else "the engine reads no file beyond 2 GiB"
        why = why if profile.engine else "there is no engine"
        yield Choice("layout", "plain", why, f"{ENGINE} 5 and 15", ("channels_first",))
        yield Choice("linear", "linear", "no engine to please", f"{ENGINE} 7", ("conv1x1",))
        fused = stateful and weights.value != "fp32"
        yield Choice(
            "attention", "fused_sdpa" if fused else "per_head", "a fused op for the GPU from iOS 18 on", f"{ENGINE} 9"
        )
        yield Choice("compute", "cpuAndGPU", why, f"{ENGINE} 25", ("cpuAndNeuralEngine",))
    yield Choice(
        "cache",
        "state" if stateful and weights.value != "fp32" else "io",
        "states keep the cache in place; they hold fp16 and came with iOS 18",
        "Core ML targets",
        ("io",) if stateful else ("state",),
    )
    yield Choice(
        "cache_write",
        "slice_update",
        "writes only the new rows; use `mask` where a runtime refuses a begin that is computed",
        "choices: cache write",
        ("mask",),
    )
    parts = _head_parts(shape.vocab_size) if engine else 1
    yield Choice(
        "lm_head",
        f"split{parts}" if parts > 1 else "whole",
        "wide heads are split into convolutions of the vocabulary",
        f"{ENGINE} 23 and 2",
        ("whole",) if parts > 1 else (),
    )
    yield Choice(
        "tied_head",
        "shared",
        "the head's blobs point into the embedding's bytes",
        "choices: shared head; Core ML itself untried",
        ("duplicated",),
    )


def _weight_bytes(shape: ModelShape, weights: str) -> int:
    """About how large the weight file will be, from below: scales are left out."""
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    bits = {"palette": 4, "int4": 4, "source": 4, "int8": 8, "fp16": 16, "fp32": 32}[weights]
    return ((shape.parameters - tables) * bits + tables * max(bits, 8)) // 8


def _head_parts(vocabulary: int) -> int:
    """8 or 16 parts that divide the vocabulary, else the nearest smaller number that does."""
    most = 8 if vocabulary <= 65536 else 16
    return next(n for n in range(most, 0, -1) if vocabulary % n == 0)


def _onnx(profile: DeviceProfile, shape: ModelShape, asked: str | None) -> Iterator[Choice]:
    """Choices for ONNX Runtime on a CPU."""
    weights = _weights(profile, "onnx", asked)
    yield weights
    yield _kv_weights(shape, weights)
    yield Choice("lut_groups", "tensor", "one Gather folds to one 8-bit matrix", "choices: one palette", ("rows16",))
    yield Choice("scale_dtype", "float16", "half the size of fp32 scales; a Cast folds at load", "choices: fp16 scales")
    yield Choice("target", "opset21", "uint4 tensors, which a palette's indices are", "choices: folded LUT")
    if weights.value in ("palette", "int8"):
        why = (
            "the LUT is folded into 8-bit codes when the file is loaded"
            if weights.value == "palette"
            else "8-bit kernel"
        )
        yield Choice("linear", "matmul_nbits", why, "choices: folded LUT", ("dequantize_matmul",))
    elif weights.value in BLOCKWISE:
        level = "4" if "dotprod" in profile.isa else "1"
        why = "int8 activations need dotprod, which this chip " + ("has" if level == "4" else "lacks")
        yield Choice("linear", "matmul_nbits", "the 4-bit kernel", f"{ARM}: MatMulNBits", ("dequantize_matmul",))
        yield Choice("accuracy_level", level, why, f"{ARM}: accuracy_level", ("1",) if level == "4" else ("4",))
    else:
        yield Choice("linear", "matmul", "weights are kept as floats", "user")
    yield Choice(
        "attention", "group_query_attention", "rotary, cache and softmax in one kernel", f"{ARM}: GroupQueryAttention"
    )
    yield Choice("cache", "shared_buffer", "written in place, bound once", "choices: cache bound once")
    yield Choice(
        "lm_head",
        "last_token",
        "logits of earlier tokens are not needed to generate",
        "choices: last token only",
        ("all",),
    )
    yield Choice(
        "tied_head",
        "shared",
        "one matrix serves the embedding and the head",
        "choices: one palette",
        ("duplicated",),
    )
    yield Choice("compute", "cpu", profile.chip.title, f"profile {profile.name}")


def _executorch(profile: DeviceProfile, shape: ModelShape, asked: str | None) -> Iterator[Choice]:
    """Choices for ExecuTorch: XNNPACK on ARM CPUs, the Core ML delegate on Apple's systems."""
    apple = profile.os in ("ios", "macos")
    weights = _weights(profile, "executorch", asked)
    yield weights
    yield _kv_weights(shape, weights)
    yield Choice("lut_groups", "tensor", "one LUT a tensor", "choices: one palette", ("rows16",))
    yield Choice("scale_dtype", "bfloat16", "XNNPACK's block scales are bfloat16", f"{ARM}: 8da4w", ("float16",))
    if apple and weights.value == "palette":
        yield Choice(
            "target", "coreml", "the Core ML delegate takes the LUT", "choices: ExecuTorch for Apple", ("xnnpack",)
        )
        yield Choice("linear", "lut", "codes stay as narrow as they are on the engine", f"{ENGINE} 14 and 16")
    elif apple and weights.value == "source":
        why = "the Core ML delegate takes scales by block, which are not for the engine"
        yield Choice("target", "coreml", why, f"{ENGINE} 15", ("xnnpack",))
        yield Choice("layout", "plain", why, f"{ENGINE} 15", ("channels_first",))
        yield Choice("linear", "linear", why, f"{ENGINE} 15")
    else:
        kernels = {"palette": "qd8_qc8w", "int8": "qd8_qc8w", "int4": "qd8_qb4w", "source": "qd8_qb4w"}
        linear = kernels.get(weights.value, "fp32")
        reasons = {
            "qd8_qc8w": "int8 codes with a scale a row: the same weights as the palette, a byte each",
            "qd8_qb4w": "4 bits in the file and in memory, in blocks of 32",
            "fp32": "weights are kept as floats",
        }
        yield Choice("target", "xnnpack", "kernels for ARM CPUs", f"{ARM}: XNNPACK")
        yield Choice("linear", linear, reasons[linear], f"{ARM}: 8da4w", tuple({"qd8_qc8w", "qd8_qb4w"} - {linear}))
    yield Choice("attention", "custom_sdpa", "one kernel with an in-place cache", f"{ARM}: LLM ops")
    yield Choice("cache", "custom_sdpa", "written in place", f"{ARM}: LLM ops")
    yield Choice(
        "lm_head",
        "last_token",
        "logits of earlier tokens are not needed to generate",
        "choices: last token only",
        ("all",),
    )
    yield Choice(
        "tied_head", "shared", "the table and the head are the same bytes", "choices: shared head", ("duplicated",)
    )
    yield Choice("compute", "cpu", profile.chip.title, f"profile {profile.name}")
