"""Whether a Core ML program is for the engine: linears, layout and compute units, which go together."""

from __future__ import annotations

from dataclasses import dataclass

from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.target import Target
from satchel.devices.planning.weights import is_blockwise

ENGINE, GPU, CPU, ALL = "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly", "all"
LAYOUTS = {"conv1x1": "channels_first", "linear": "plain"}
NEWEST = "CT18"


@dataclass(frozen=True)
class Program:
    """What is decided so far of a Core ML program.

    Attributes:
        weights: scheme.
        modern: the target has states, several functions, grouped LUTs and scales by block.
        channels_first: the engine's layout.
        engine: the app may ask for the engine.
    """

    weights: str
    modern: bool
    channels_first: bool
    engine: bool

    @property
    def fp32(self) -> bool:
        """Whether it computes in fp32."""
        return self.weights == "fp32"

    @property
    def stateful(self) -> bool:
        """Whether the cache can lie in states."""
        return self.modern and not self.fp32


def units(on: Decisions, target: Target, scheme: str, *, modern: bool, against: Other | None = None) -> Program:
    """Decides linear, layout and compute.

    Args:
        on: where the choices go.
        target: device and model.
        scheme: of the weights.
        modern: see Program.
        against: what else forbids the engine.
    """
    against = against or _against_engine(target, scheme)
    engine = against is None and on.asked("compute") in (None, ENGINE, ALL)
    for linear, layout in LAYOUTS.items():
        if on.asked("layout") == layout:
            on.imply("linear", linear)
    linear = _linear(on, engine=engine)
    channels_first = LAYOUTS[linear] == "channels_first"
    compute = _compute(on, target, against, channels_first=channels_first)
    return Program(scheme, modern, channels_first, against is None and compute in (ENGINE, ALL))


def _against_engine(target: Target, scheme: str) -> Other | None:
    """What forbids the engine, if anything does."""
    if not target.profile.engine:
        return never(ENGINE, "there is no engine", "NE25")
    if is_blockwise(scheme):
        return never(ENGINE, "scales by block fail or leave the engine", "NE15")
    if scheme == "fp32":
        return never(ENGINE, "the engine computes in fp16", "NE05a, CH30")
    return None


def _linear(on: Decisions, *, engine: bool) -> str:
    elsewhere = [
        never("matmul_nbits", "an operator of onnxruntime", "CH21"), never("qd8_qc8w", "a kernel of XNNPACK", "CH21")
    ]  # fmt: skip
    if engine:
        other = Other("linear", "the engine is reported to prefer 1x1 convolutions", "NE07")
        reason = "the engine prefers a 1x1 convolution, though sources conflict"
        linear = on.settle("linear", "conv1x1", reason, "NE07", other, *elsewhere)
    else:
        other = Other("conv1x1", "there is no engine to please", "CH29, NE07")
        linear = on.settle("linear", "linear", "no engine to please", "CH29, NE07", other, *elsewhere)
    layout = LAYOUTS[linear]
    reason = "(B, C, 1, S) pads nothing on the last axis" if layout == "channels_first" else "as linears have it"
    rest = [never(value, f"that of {key}", "CH24, NE01") for key, value in LAYOUTS.items() if value != layout]
    on.follow("layout", layout, reason, "NE01, CH24", "linear", *rest)
    return linear


def _compute(on: Decisions, target: Target, against: Other | None, *, channels_first: bool) -> str:
    cpu = Other(CPU, "slower, and bit for bit the same everywhere", "NE25")
    every = Other(ALL, "Core ML may then move ops between engine and GPU", "NE25")
    if against is not None:
        return on.settle(
            "compute", GPU, against.why, against.rules, against, cpu, Other(ALL, against.why, against.rules)
        )
    if channels_first:
        gpu = Other(GPU, "this layout is the engine's", "CH29")
        return on.settle("compute", ENGINE, f"engine {target.profile.engine}", "NE25, NE01", gpu, cpu, every)
    engine = Other(ENGINE, "this layout pads on the engine", "NE01")
    return on.settle("compute", GPU, "plain ops suit the GPU", "CH29", engine, cpu, every)
