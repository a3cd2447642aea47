"""What a traced module would need on a device, before it is exported: the sum of forecast(), of any graph of ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.engine import leaving_module
from satchel.devices.forecast.loading import loading_for
from satchel.devices.forecast.memory import HELD, LOADING, MAPPED, Line, Memory, app_line, runtime_line
from satchel.devices.forecast.speed import Speed, Work, machine_of
from satchel.devices.forecast.speed import forecast as speed_of
from satchel.devices.forecast.storage import storage_for
from satchel.devices.forecast.verdict import Fit, allowance_of
from satchel.devices.forecast.weights import by_coreml, expanded, runtime_of
from satchel.devices.plan import Plan
from satchel.devices.profile import DeviceProfile

LAYER = 7
"""Matrices of a transformer's layer: the time between ops was fitted for such layers."""
PRODUCTS = ("linear", "product")
KERNELS = {"matmul_nbits": (*PRODUCTS, "embedding"), "qd8_qc8w": (*PRODUCTS, "convolution", "embedding")}
"""Kinds of matrices whose codes a runtime's kernels take as they are; all else becomes fp32 when it is loaded."""
FOLDING = 4
"""Bytes a weight that onnxruntime keeps while it folds a palette of 4 bits (docs/choices.md, folded LUT)."""


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of weights.

    Attributes:
        kind: "linear", "product", "convolution", "transposed" or "embedding".
        rows, columns: of it; a row has a scale.
        bits: of a number in the file.
    """

    kind: str
    rows: int
    columns: int
    bits: int

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return self.rows * self.columns

    @property
    def bytes(self) -> int:
        """In the file, row scales included."""
        return self.count * self.bits // 8 + (2 * self.rows if self.bits <= 8 else 0)


@dataclass(frozen=True)
class ModuleSizes:
    """What a forecast needs to know of a module, with its weights as a plan has them.

    Attributes:
        matrices: every one.
        floats: other numbers among the parameters.
        activations: numbers that are alive at once, at the most, during the largest call.
        operations: multiplications and additions of that call.
        files: bytes of other files, such as a tokenizer.
    """

    matrices: tuple[StoredMatrix, ...]
    floats: int
    activations: int
    operations: int
    files: int = 0

    @property
    def stored(self) -> int:
        """Bytes of all weights in the file."""
        return sum(m.bytes for m in self.matrices) + 4 * self.floats

    @property
    def products(self) -> int:
        """How many weights linears have."""
        return sum(m.count for m in self.matrices if m.kind in PRODUCTS)


@dataclass(frozen=True)
class ModuleForecast(Fit):
    """All that can be said of a module on a device before it is exported.

    Attributes:
        call: calls a second.
    """

    call: Speed

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        low, value, high = (round(1e3 / each, 3) for each in (self.call.high, self.call.value, self.call.low))
        times = {"milliseconds": value, "low": low, "high": high}
        return super().to_json() | {"call": {**times, "formula": self.call.formula, "bound": self.call.bound}}


def forecast_module(profile: DeviceProfile, plan: Plan, sizes: ModuleSizes) -> ModuleForecast:
    """What would come of a plan that make_module_plan made."""
    lines = [*_weights(profile, plan, sizes), _activations(plan, sizes), runtime_line(plan), app_line(profile)]
    made = 0 if not by_coreml(plan) else _counted(sizes, 2) if expanded(plan, profile.engine) else sizes.stored
    layers = max(1, round(len(sizes.matrices) / LAYER))
    bundle = sizes.stored + sizes.files + int(constant("package.layer_bytes").value * layers)
    work = Work(_held(profile, plan, sizes), sizes.operations, layers, 1)
    return ModuleForecast(
        profile.name, plan, Memory(tuple(lines)), allowance_of(profile), storage_for(profile, plan, bundle, made),
        loading_for(plan, sizes.stored, sizes.products),
        leaving_module(profile, plan, sizes.stored, _table(sizes)), speed_of(work, machine_of(profile, plan)),
    )  # fmt: skip


def _weights(profile: DeviceProfile, plan: Plan, sizes: ModuleSizes) -> list[Line]:
    held = _held(profile, plan, sizes)
    if by_coreml(plan):
        why = "expanded to fp16 when the model is loaded (docs/neural-engine.md, targets and rule 14)"
        return [Line("weights", held, HELD, why if expanded(plan, profile.engine) else "as they are in the file")]
    file = Line("model file", sizes.stored, MAPPED, "read once")
    if runtime_of(plan) == "xnnpack":
        return [Line("weights", held, HELD, "8-bit codes where there is a kernel for them, all else fp32"), file]
    copies = constant("onnx.copies").value
    why = f"8-bit codes of linears, all else fp32, times {copies:g}: packed for the kernels beside what the file gave"
    lines = [Line("weights", int(held * copies), HELD, why), file]
    if plan["weights"] == "palette":
        extra = FOLDING * sizes.products + held - int(held * copies)
        words = f"{FOLDING} bytes a weight of the linears while the LUTs are folded (docs/choices.md, folded LUT)"
        lines.append(Line("folding", max(extra, 0), LOADING, words))
    return lines


def _held(profile: DeviceProfile, plan: Plan, sizes: ModuleSizes) -> int:
    """Bytes of the weights as kernels read them."""
    if by_coreml(plan):
        return _counted(sizes, 2) if expanded(plan, profile.engine) else sizes.stored
    kernels = KERNELS.get(plan["linear"], ())
    return 4 * sizes.floats + sum(
        m.count + 4 * m.rows if m.bits <= 8 and m.kind in kernels else 4 * m.count for m in sizes.matrices
    )


def _counted(sizes: ModuleSizes, each: int) -> int:
    return each * (sizes.floats + sum(m.count for m in sizes.matrices))


def _activations(plan: Plan, sizes: ModuleSizes) -> Line:
    each = 2 if plan["activation_dtype"] == "float16" else 4
    arena = constant("onnx.arena").value if plan.format == "onnx" else 1
    why = f"{sizes.activations:,} numbers alive at once in the largest call x {each} bytes"
    return Line("activations", int(sizes.activations * each * arena), HELD, why)


def _table(sizes: ModuleSizes) -> int:
    """Numbers of the largest embedding."""
    return max((m.count for m in sizes.matrices if m.kind == "embedding"), default=0)
