"""A plan for Core ML, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.ops.base import Weights
from satchel.export.ops.mil import Call, MilOps
from satchel.export.ops.mil_builder import TARGETS
from satchel.export.ops.mil_engine import EngineOps
from satchel.export.ops.mil_plain import PlainOps
from satchel.export.palettize.tensors import PlainTensor

LAYOUTS: dict[str, type[MilOps]] = {"channels_first": EngineOps, "plain": PlainOps}
_FP32_PROBE = "layers.0.self_attn.q_proj"
MOST_CHUNKS = 64
"""About 128 programs can be loaded by one process, and a chunk has two, prefill and decode (neural-engine rule 20)."""


@dataclass(frozen=True)
class Settings:
    """What a plan asks for.

    Attributes:
        target: "iOS16", "iOS17" or "iOS18".
        layout: a key of LAYOUTS.
        dtype: np.float16 or np.float32, of the program's arithmetic.
        functions: "decode" and perhaps "prefill" -> the function's name, and what is particular to it.
        compute: units that the app should ask for.
        chunks: packages that the layers are spread over.
        tied_head: "shared" or "duplicated".
    """

    target: str
    layout: str
    dtype: type
    functions: dict[str, tuple[str, Call]]
    compute: str
    chunks: int
    tied_head: str

    @property
    def call(self) -> Call:
        """Of decode."""
        return self.functions["decode"][1]

    @property
    def blockwise(self) -> bool:
        """Whether iOS18's constexpr ops, states and several functions are there."""
        return self.target == "iOS18"

    @property
    def prefill_length(self) -> int:
        """Tokens of the longest call."""
        return max(call.length for _, call in self.functions.values())


def read_settings(weights: Weights, plan: Plan) -> Settings:
    """Reads a plan.

    Args:
        weights: whose first matrix tells whether the program computes in fp32.
        plan: for format "coreml".

    Raises:
        PlanError: it asks for what the target lacks.
    """
    target, layout = _choose(plan, "target", tuple(TARGETS)), _choose(plan, "layout", tuple(LAYOUTS))
    probe = weights.matrix(_FP32_PROBE)
    dtype = np.float32 if isinstance(probe, PlainTensor) and probe.bits == 32 else np.float16
    tied_head = _choose(plan, "tied_head", ("shared", "duplicated"), "shared")
    decode = Call(
        length=1,
        context=plan.context_length,
        cache=_cache(plan, target, dtype),
        cache_write=_choose(plan, "cache_write", ("slice_update", "mask", "host"), "slice_update"),
        head_parts=_head_parts(plan),
        shared_head=tied_head == "shared",
        fused=_fused(plan, target, layout),
    )
    functions = {"decode": ("main", decode)}
    if target == "iOS18" and plan.prefill_length > 1:
        _check_prefill(plan)
        functions = {"prefill": ("prefill", replace(decode, length=plan.prefill_length)), **functions}
    return Settings(target, layout, dtype, functions, plan["compute"], _chunks(plan), tied_head)


def _choose(plan: Plan, role: str, known: tuple[str, ...], missing: str | None = None) -> str:
    if missing is not None and all(choice.role != role for choice in plan.choices):
        return missing
    if plan[role] not in known:
        raise PlanError(f"Core ML has no {role} of this name", got=plan[role], wanted=known)
    return plan[role]


def _cache(plan: Plan, target: str, dtype: type) -> str:
    cache = _choose(plan, "cache", ("state", "io"))
    if cache == "state" and target != "iOS18":
        hint = "take the target iOS18, or cache = io"
        raise PlanError("states came with iOS18", got=f"cache = state on {target}", wanted="cache = io", hint=hint)
    return cache if dtype is np.float16 else "io"


def _head_parts(plan: Plan) -> int:
    value = plan["lm_head"]
    if value == "whole":
        return 1
    count = value.removeprefix("split")
    if not count.isdecimal() or int(count) < 1 or not value.startswith("split"):
        raise PlanError("Core ML has no lm_head of this name", got=value, wanted="whole, or split and a number")
    return int(count)


def _chunks(plan: Plan) -> int:
    value = plan.get("chunks", "1")
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= MOST_CHUNKS):
        raise PlanError("this many chunks cannot be written", got=value, wanted=f"1 to {MOST_CHUNKS}")
    return int(value)


def _fused(plan: Plan, target: str, layout: str) -> bool:
    fused = _choose(plan, "attention", ("per_head", "batched", "fused_sdpa")) == "fused_sdpa"
    if fused and (target != "iOS18" or layout != "plain"):
        raise PlanError(
            "scaled_dot_product_attention is for iOS18's GPU and CPU; on the engine it gave inf and NaN (rule 9)",
            got=f"attention = fused_sdpa, layout = {layout}, target = {target}",
            wanted="attention = per_head",
        )
    return fused


def _check_prefill(plan: Plan) -> None:
    if plan.prefill_length > plan.context_length:
        raise PlanError(
            "a prefill call longer than the context", got=plan.prefill_length, wanted=f"<= {plan.context_length}"
        )
