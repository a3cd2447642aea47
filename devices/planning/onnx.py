"""Choices for onnxruntime on a CPU."""

from __future__ import annotations

from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.lengths import any_prefill, context_length
from satchel.devices.planning.sizes import palette_fits
from satchel.devices.planning.target import Target
from satchel.devices.planning.weights import (
    cache_dtype,
    is_blockwise,
    is_float,
    kv_weights,
    lut_groups,
    scale_dtype,
    weights,
)
from satchel.devices.rulebook import rule

DOTPROD, DOTPROD_8 = "AC04", "AC08"
"""Rules of the int8 kernels for codes of 4 and of 8 bits, which hold for chips that have them."""


def onnx(on: Decisions, target: Target, *, by_loss: bool) -> tuple[int, int]:
    """Makes all choices; returns context and prefill length."""
    if target.holds(DOTPROD_8) and not palette_fits(target.profile, target.shape, folding=True):
        usual = ("int4", "folding a palette of this size is not expected to fit an app's memory", "CH04, CH17")
    elif target.holds(DOTPROD_8):
        usual = ("palette", "4 bits in the file, folded into codes for the 8-bit kernel", "CH04, AC08")
    else:
        usual = ("int4", "without dotprod only 4-bit blocks have a fast kernel", "AC08, AC04")
    scheme = weights(on, target, "onnx", *usual)
    kv_weights(on, target, scheme, by_loss=by_loss)
    lut_groups(on, scheme)
    scale_dtype(on, "float16")
    on.settle(
        "target", "opset21", "tensors of uint4, which a palette's indices are", "CH26",
        never("opset17", "it has no tensors of 4 bits", "CH26"),
    )  # fmt: skip
    _linear(on, target, scheme)
    _forms(on, target, scheme)
    dtype = cache_dtype(on, scheme, "float32")
    context = context_length(on, target, scheme, dtype, folded=True)
    any_prefill(on)
    _head(on, target)
    on.follow("compute", "cpu", target.profile.chip.title, "AC18", "the format", never("gpu", "a CPU graph", "CH21"))
    return context, 0


def _linear(on: Decisions, target: Target, scheme: str) -> None:
    elsewhere = (
        never("conv1x1", "convolutions are for the Neural Engine", "CH21, NE07"),
        never("matmul_bnb4", "it expands the whole matrix in each call", "AC10"),
    )
    if is_float(scheme):
        codes = never("matmul_nbits", "weights are kept as floats", "AC01")
        on.settle("linear", "matmul", "weights are kept as floats", "CH01", codes, *elsewhere)
        on.follow("activation_dtype", "float32", "products of floats", "AC03", "weights")
        return
    expanded = never("dequantize_matmul", "not every onnxruntime replaces it by the kernel", "CH21, CH04")
    on.settle("linear", "matmul_nbits", _kernel(target, scheme), _kernel_rules(target, scheme), expanded, *elsewhere)
    level = _accuracy_level(on, target, scheme)
    int8 = level == str(rule("AC03").number("int8"))
    value, other = ("int8", "float32") if int8 else ("float32", "int8")
    reason = "rounded by blocks as the kernel reads them" if int8 else "the fp32 kernel"
    on.follow(
        "activation_dtype", value, reason, "AC03, AC20", "accuracy_level",
        never(other, f"accuracy_level {level} has {value}", "AC03"),
    )  # fmt: skip


def _kernel(target: Target, scheme: str) -> str:
    if not target.holds(DOTPROD):
        return (
            "the kernel for blocks in fp32" if is_blockwise(scheme) else "without dotprod each call expands the matrix"
        )
    what = "4-bit blocks" if is_blockwise(scheme) else "8-bit codes, into which a LUT is folded"
    matrix = ", prompts by i8mm" if target.holds("AC06") else ", no i8mm for prompts"
    return f"the kernel for {what}, by dotprod{matrix}"


def _kernel_rules(target: Target, scheme: str) -> str:
    kernel = "AC01, AC04, AC05" if is_blockwise(scheme) else "AC08, CH04"
    return f"{kernel}, AC06" if target.holds("AC06") else kernel


def _accuracy_level(on: Decisions, target: Target, scheme: str) -> str:
    int8, fp32 = (str(rule("AC03").number(name)) for name in ("int8", "fp32"))
    if not is_blockwise(scheme):
        slow = never(
            fp32, "the fp32 kernel of 8-bit codes is some 50 times slower, and no exporter writes it", "AC08, CH21"
        )
        known = target.holds(DOTPROD_8)
        reason = (
            "int8 activations" if known else "int8 activations, which buy nothing without dotprod; weights=int4 would"
        )
        return on.settle("accuracy_level", int8, reason, "AC03, AC08", slow)
    if target.holds(DOTPROD):
        slower = Other(fp32, "fp32 activations are two to three times slower", "AC03")
        return on.settle("accuracy_level", int8, "int8 activations, which dotprod multiplies", "AC03, AC04", slower)
    useless = Other(int8, "without dotprod it falls back to the fp32 kernel", "AC04")
    reason = "without dotprod int8 activations buy nothing; ExecuTorch has int8 kernels for such chips"
    return on.settle("accuracy_level", fp32, reason, "AC04, AC03, AC13", useless)


def _forms(on: Decisions, target: Target, scheme: str) -> None:
    """Forms that are one for all devices."""
    apart = never("single_ops", "no exporter writes attention op by op", "AC11, CH21")
    on.settle("attention", "group_query_attention", "rotary, cache and softmax in one kernel", "AC11", apart)
    table, why = ("gather", "rows of floats") if is_float(scheme) else ("gather_block_quantized", "rows of 8-bit codes")
    on.follow("embedding", table, f"{why}, unless a recipe keeps the table otherwise", "CH21", "the weights")
    _norm(on, target)
    _rotary(on, target)
    name, text = {
        "silu": ("quick_gelu", "x * sigmoid(x) as one op"),
        "gegelu": ("quick_gelu", "x * sigmoid(1.702 x) as one op, within limits"),
    }.get(target.shape.activation, ("gelu", "GELU in the tanh form"))
    on.follow("activation", name, text, "CH21", "the model")
    copied = never("copied", "past and present as two buffers are copied at each step", "CH07")
    on.settle("cache", "shared_buffer", "written in place, bound once", "CH07", copied)


def _norm(on: Decisions, target: Target) -> None:
    peak = never("divided_by_peak", "fp32 needs no protection from overflow", "NE10")
    if target.shape.pre_norm:
        on.follow("norm", "with_residual_sum", "the residual sum and the norm in one node", "CH28", "the format", peak)
    else:
        apart = never("with_residual_sum", "this model's norms come before the sum", "CH28")
        on.follow("norm", "by_itself", "what is added is normed before the sum", "CH28", "the model", apart, peak)


def _rotary(on: Decisions, target: Target) -> None:
    if (target.shape.rotated or target.shape.head_dim) % rule("AC11").number("rotated_multiple"):
        inside = never("in_attention", f"{target.shape.rotated} channels are not rotated in the kernel", "AC11")
        on.follow("rotary", "tables", "by single ops before the kernel", "AC11, CH15", "the model", inside)
    else:
        single = never("tables", "more ops beside the kernel that has it", "AC11")
        on.follow("rotary", "in_attention", "by tables that the kernel reads", "AC11, CH15", "attention", single)


def _head(on: Decisions, target: Target) -> None:
    every = never("all", "Satchel's runtime and genai read one row of logits", "CH08")
    on.settle("lm_head", "last_token", "logits of earlier tokens are not needed to generate", "CH08", every)
    if target.shape.tied_embeddings:
        copies = never("duplicated", "no exporter writes a second copy", "CH21, CH09")
        on.settle("tied_head", "shared", "one matrix serves the embedding and the head", "CH09", copies)
