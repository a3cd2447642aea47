"""Choices for ExecuTorch: XNNPACK on ARM CPUs, the Core ML delegate for Apple's systems."""

from __future__ import annotations

from satchel.devices.planning import coreml_cache as caches
from satchel.devices.planning.coreml import coreml_luts
from satchel.devices.planning.coreml_forms import forms
from satchel.devices.planning.coreml_head import head
from satchel.devices.planning.coreml_units import ENGINE, NEWEST, units
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.lengths import any_prefill, context_length
from satchel.devices.planning.sizes import model_bytes, palette_fits
from satchel.devices.planning.target import Target
from satchel.devices.planning.weights import cache_dtype, is_blockwise, kv_weights, lut_groups, scale_dtype, weights
from satchel.devices.rulebook import rule

DELEGATED = ("palette", "int8", "fp16", "source")
"""Schemes that the Core ML delegate can be given: int4 is quantized for XNNPACK's packing, and states hold fp16."""
BY_DEFAULT = ("palette", "source")
KERNELS = {
    "palette": "qd8_qc8w",
    "int8": "qd8_qc8w",
    "int4": "qd8_qb4w",
    "source": "qd8_qb4w",
    "fp16": "fp32",
    "fp32": "fp32",
}
REASONS = {
    "qd8_qc8w": ("8-bit codes with a scale a row, a byte each", "CH05, AC14"),
    "qd8_qb4w": ("4 bits in the file and in memory, in blocks", "AC12, AC13"),
    "fp32": ("weights are kept as floats", "CH01"),
}


def executorch(on: Decisions, target: Target, *, by_loss: bool) -> tuple[int, int]:
    """Makes all choices; returns context and prefill length."""
    delegate = target.apple and target.ios >= rule(NEWEST).ios and on.asked("target") != "xnnpack"
    scheme = weights(on, target, "executorch", *_usual(target, delegate=delegate))
    backend = _target(on, target, scheme)
    kv_weights(on, target, scheme, by_loss=by_loss)
    if backend == "coreml":
        return _coreml(on, target, scheme)
    return _xnnpack(on, target, scheme)


def _usual(target: Target, *, delegate: bool) -> tuple[str, str, str]:
    if delegate:
        return "palette", "4-bit codes with a LUT, which the engine streams", "NE14, CH12"
    slow = rule("AC19").number("slow_gb_s")
    if target.profile.bandwidth_gb_s <= slow:
        return (
            "int4",
            f"each token reads all weights: at {target.profile.bandwidth_gb_s:g} GB/s a byte each is slow",
            "AC19",
        )
    if not palette_fits(target.profile, target.shape, folding=False):
        return "int4", "a byte for each weight is not expected to fit an app's memory", "CH05, CH17"
    return "palette", "the same weights as in every format, in 8-bit codes", "CH02, CH05"


def _target(on: Decisions, target: Target, scheme: str) -> str:
    delegate = _against_delegate(target, scheme)
    other = never("coreml", *delegate) if delegate else Other("coreml", "made for palettes", "CH12")
    if not delegate and scheme in BY_DEFAULT:
        cpu = Other("xnnpack", "a byte a weight, and no Neural Engine", "CH12, CH05")
        return on.settle("target", "coreml", "the Core ML delegate takes the codes as they are", "CH12", cpu)
    return on.settle("target", "xnnpack", "kernels for ARM CPUs", "AC13, AC14", other)


def _against_delegate(target: Target, scheme: str) -> tuple[str, str] | None:
    if not target.apple:
        return "Core ML exists on Apple's systems only", "CH12"
    if target.ios < rule(NEWEST).ios:
        return "the delegate keeps the cache in states, which came with iOS 18", f"{NEWEST}, CH12"
    if scheme not in DELEGATED:
        return "the delegate's states hold fp16, and int4 is made for XNNPACK's packing", "CH12, CH30"
    return None


def _xnnpack(on: Decisions, target: Target, scheme: str) -> tuple[int, int]:
    lut_groups(on, scheme)
    scale_dtype(on, "bfloat16")
    _linear(on, target, scheme)
    if not target.shape.sparse_beyond:
        _attention(on, target, 0)
    table, why = ("embedding_byte", "rows of 8-bit codes") if "fp" not in scheme else ("gather", "rows of floats")
    on.follow(
        "embedding", table, f"{why}, unless a recipe keeps the table otherwise", "AC15", "the weights",
        never("embedding_4bit", "no exporter writes it; 4 bits there double the loss", "CH21, AC15"),
    )  # fmt: skip
    on.follow(
        "norm", "mean_by_linear", "the mean as a product of one row stays in the delegate", "CH27", "the format",
        never("divided_by_peak", "fp32 needs no protection from overflow", "NE10"),
    )  # fmt: skip
    on.follow("rotary", "tables", "rows of tables, turned by a product", "CH15", "the format")
    text = {"silu": "x * sigmoid(x)", "gegelu": "x * sigmoid(1.702 x), within limits"}
    written = text.get(target.shape.activation, "GELU as x * sigmoid(u)")
    on.follow("activation", "times_sigmoid", written, "CH21", "the model")
    on.settle(
        "cache", "custom_sdpa", "written in place", "AC16", never("io", "no exporter passes it in and out", "CH21")
    )
    dtype = cache_dtype(on, scheme, "float32")
    context = context_length(on, target, scheme, dtype, folded=True)
    if target.shape.sparse_beyond:
        _attention(on, target, context)
    any_prefill(on)
    every = never("all", "no exporter writes it", "CH21, CH08")
    on.settle("lm_head", "last_token", "logits of earlier tokens are not needed to generate", "CH08", every)
    if target.shape.tied_embeddings:
        copies = never("duplicated", "no exporter writes a second copy", "CH21, CH09")
        on.settle("tied_head", "shared", "the table and the head are the same bytes", "CH09", copies)
    on.follow(
        "compute", "cpu", target.profile.chip.title, "AC18", "target", never("gpu", "XNNPACK is for CPUs", "CH21")
    )
    return context, 0


def _attention(on: Decisions, target: Target, context: int) -> None:
    if target.shape.softcapped:
        fused = never("custom_sdpa", "the op cannot cap scores", "CH32, AC16")
        reason = "products of XNNPACK over the whole cache, whose scores are capped"
        on.settle("attention", "capped_products", reason, "CH32", fused)
    elif 0 < target.shape.sparse_beyond < context:
        fused = never("custom_sdpa", "the op has one mask for all heads", "CH33, AC16")
        reason = "products of XNNPACK over the whole cache, with a mask for each head"
        on.settle("attention", "masked_products", reason, "CH33", fused)
    else:
        single = never("single_ops", "no exporter writes attention op by op", "AC16, CH21")
        on.settle("attention", "custom_sdpa", "one kernel over a cache in place", "AC16", single)


def _linear(on: Decisions, target: Target, scheme: str) -> None:
    kernel = KERNELS[scheme]
    reason, rules = REASONS[kernel]
    others = [never(k, f"weights={scheme} has {kernel}", "CH05, AC12") for k in REASONS if k != kernel]
    if kernel == "qd8_qc8w":
        others.append(Other("f32_qc8w", "exact, but prompts are read more slowly", "AC20"))
    elif kernel == "qd8_qb4w":
        others.append(never("f32_qb4w", "4-bit blocks have kernels for int8 activations only", "AC12, CH21"))
    others.append(never("conv1x1", "convolutions are for the Neural Engine", "CH21, NE07"))
    if kernel != "fp32":
        by, extra = (
            ("i8mm", ", AC06") if target.holds("AC06") else ("dotprod", "") if target.holds("AC04") else ("NEON", "")
        )
        reason, rules = f"{reason}; by {by}", rules + extra
    linear = on.settle("linear", kernel, reason, rules, *others)
    int8 = linear.startswith("qd8")
    why = "rounded for each token, as the kernel takes them" if int8 else "products of floats"
    other = never("float32" if int8 else "int8", f"the kernel {linear} takes others", "AC20")
    on.follow("activation_dtype", "int8" if int8 else "float32", why, "AC20", "linear", other)


def _coreml(on: Decisions, target: Target, scheme: str) -> tuple[int, int]:
    """What the delegate's program is made of: one function for one token, with states, for iOS 18."""
    opset = rule(NEWEST)
    coreml_luts(on, scheme, modern=True)
    scale_dtype(on, "float16")
    on.follow("opset", opset.text("opset"), "of the delegate's program, which needs states", NEWEST, "target")
    oldest = f"iOS {opset.ios}, macOS {opset.number('macos')}"
    on.follow("minimum_os", oldest, "the oldest systems that read the program", NEWEST, "target")
    program = units(on, target, scheme, modern=True, against=_too_large(target, scheme))
    on.follow(
        "chunks", "1", "a delegate has one program", "CH12, CH21", "target",
        never("2", "the delegate's program is in one piece", "CH12, CH21"),
    )  # fmt: skip
    forms(on, target, program)
    on.settle(
        "cache", "state", "ExecuTorch passes no cache to the delegate", "CH12", never("io", "as the reason", "CH12")
    )
    caches.cache_write(on)
    dtype = caches.dtype(on, program)
    context = context_length(on, target, scheme, dtype, folded=False)
    longer = str(int(rule("CH19").number("tokens")))
    on.follow(
        "prefill_length", "1", "the delegate keeps states for one function only", "CH12", "target",
        never(longer, "a second function would have states of its own", "CH12"),
    )  # fmt: skip
    head(on, target, channels_first=program.channels_first)
    return context, 1


def _too_large(target: Target, scheme: str) -> Other | None:
    if not is_blockwise(scheme) and model_bytes(target.shape, scheme) > rule("NE19b").number("most_bytes"):
        return never(
            ENGINE, "a delegate's program is in one piece, and too large for the engine's compiler", "NE19b, CH12"
        )
    return None
