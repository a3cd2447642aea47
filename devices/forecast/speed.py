"""How fast a plan decodes and reads prompts: time is bytes over bandwidth, or operations over throughput.

    decode    seconds a token = bytes read / (bandwidth x efficiency) + layers x overhead
    prefill   seconds a call  = max(bytes read / (bandwidth x efficiency), operations / (peak x efficiency))
                                + layers x overhead

The efficiencies and the overhead are constants.toml's; docs/forecast.md says how they were fitted and how far off the
published figures they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.chip import Chip, Cores
from satchel.devices.forecast.constants import Constant, checked, constant, entries
from satchel.devices.forecast.weights import by_coreml, cache_width, count, read_bytes, runtime_of
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.profile import DeviceProfile
from satchel.devices.strict_toml import Field

CORES = Path(__file__).parent / "cores.toml"
KIND = "any "
"""cores.toml names what holds for cores that it does not list: "any big"."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second.

    Attributes:
        value: the likeliest.
        low, high: the range that the constants leave.
        formula: with its figures.
        bound: "bandwidth", "compute" or "overhead": what takes most of the time.
    """

    value: float
    low: float
    high: float
    formula: str
    bound: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "tokens_per_second": round(self.value, 2), "low": round(self.low, 2), "high": round(self.high, 2),
            "formula": self.formula, "bound": self.bound,
        }  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What one call costs, whatever executes it.

    Attributes:
        bytes: read from memory.
        operations: multiplications and additions, in the type that the kernels use.
        layers: of the model.
        tokens: that the call yields or reads.
    """

    bytes: float
    operations: float
    layers: int
    tokens: int


@dataclass(frozen=True)
class Machine:
    """What executes it.

    Attributes:
        bandwidth: bytes a second, at the peak.
        throughput: operations a second, at the peak.
        kind: prefix of its constants: "cpu", "neural-engine" or "gpu".
        words: where the two come from.
    """

    bandwidth: float
    throughput: float
    kind: str
    words: str


def decode_speed(
    profile: DeviceProfile, plan: Plan, shape: ModelShape, *, bits: int | None = None, filled: int | None = None
) -> Speed:
    """Tokens a second while an answer is written.

    Args:
        profile, plan, shape, bits: as memory_of.
        filled: tokens in the cache; half of the context if None. A static cache of Core ML is read whole (rule 22).
    """
    tokens = plan.context_length if by_coreml(plan) else plan.context_length // 2 if filled is None else filled
    cached, counts = _cache_bytes(plan, shape, tokens), count(shape)
    weights = read_bytes(plan, shape, bits, profile.engine)
    return forecast(
        Work(weights + cached, 2 * (counts.linears + counts.head), shape.layers, 1), machine_of(profile, plan)
    )


def prefill_speed(
    profile: DeviceProfile, plan: Plan, shape: ModelShape, *, bits: int | None = None, prompt: int = 128
) -> Speed:
    """Tokens a second while a prompt is read, in calls of the plan's prefill length, or of the whole prompt."""
    tokens = plan.prefill_length or min(prompt, plan.context_length)
    operations = 2 * count(shape).linears * tokens + 2 * count(shape).head + _attention(shape, tokens)
    cached = _cache_bytes(plan, shape, plan.context_length if by_coreml(plan) else tokens // 2)
    work = Work(read_bytes(plan, shape, bits, profile.engine) + cached, operations, shape.layers, tokens)
    return forecast(work, machine_of(profile, plan))


def _cache_bytes(plan: Plan, shape: ModelShape, tokens: int) -> int:
    return 2 * shape.key_channels * tokens * cache_width(plan)


def _attention(shape: ModelShape, tokens: int) -> int:
    return 2 * tokens * tokens * shape.layers * shape.heads * shape.head_dim


def forecast(work: Work, machine: Machine) -> Speed:
    """The speed of some work on a machine, with the range that the constants leave."""
    names = ("efficiency", "compute_efficiency", "overhead_s")
    reading, computing, overhead = (constant(f"{machine.kind}.{name}") for name in names)
    parts = _seconds(work, machine, reading.value, computing.value, overhead.value)
    slow = sum(_taken(_seconds(work, machine, reading.low, computing.low, overhead.high)))
    fast = sum(_taken(_seconds(work, machine, reading.high, computing.high, overhead.low)))
    kinds = dict(zip(("bandwidth", "compute", "overhead"), parts, strict=True))
    return Speed(
        work.tokens / sum(_taken(parts)), work.tokens / slow, work.tokens / fast,
        _formula(work, machine, reading, computing, overhead), max(kinds, key=lambda k: kinds[k]),
    )  # fmt: skip


def _seconds(
    work: Work, machine: Machine, reading: float, computing: float, overhead: float
) -> tuple[float, float, float]:
    """(reading, computing, overhead) of a call."""
    return (
        work.bytes / (machine.bandwidth * reading), work.operations / (machine.throughput * computing),
        work.layers * overhead,
    )  # fmt: skip


def _taken(parts: tuple[float, float, float]) -> tuple[float, float]:
    """Reading and computing go on at the same time."""
    return max(parts[0], parts[1]), parts[2]


def _formula(work: Work, machine: Machine, reading: Constant, computing: Constant, overhead: Constant) -> str:
    return (
        f"{work.tokens} / (max({work.bytes / 1e6:,.0f} MB / ({machine.bandwidth / 1e9:g} GB/s x {reading.value:g}), "
        f"{work.operations / 1e9:,.1f} Gop / ({machine.throughput / 1e9:,.0f} Gop/s x {computing.value:g})) + "
        f"{work.layers} x {overhead.value * 1e6:g} us); {machine.words}"
    )


def machine_of(profile: DeviceProfile, plan: Plan) -> Machine:
    """What executes a plan on a device."""
    runtime = runtime_of(plan)
    if runtime == "neural-engine":
        return neural_engine(profile.chip)
    if runtime == "coreml-gpu":
        return gpu(profile.chip)
    wide = plan["weights"] in ("fp16", "fp32") or plan.get("activation_dtype", "int8") != "int8"
    return cpu(profile.chip, wide=wide)


def cpu(chip: Chip, *, wide: bool = False) -> Machine:
    """The cores together; what the CPU was measured to read counts before the memory's published peak.

    Args:
        chip: whose cores.
        wide: products are of floats, not of int8.
    """
    throughput = sum(c.count * core_operations(c, () if wide else chip.isa) for c in chip.cores)
    efficiency = constant("cpu.efficiency").value
    bandwidth = chip.measured_gb_s / efficiency if chip.measured_gb_s else chip.bandwidth_gb_s
    words = f"{chip.measured_gb_s:g} GB/s measured" if chip.measured_gb_s else f"{bandwidth:g} GB/s published"
    return Machine(bandwidth * 1e9, throughput, "cpu", f"CPU of {chip.title}, {words}")


def neural_engine(chip: Chip) -> Machine:
    """Apple's engine; of chips without a measured bandwidth, a share of the memory's."""
    known, most = chip.engine_gb_s, constant("neural-engine.most_gb_s").value
    bandwidth = known or min(chip.bandwidth_gb_s * constant("neural-engine.share").value, most)
    words = "measured, rule 26" if known else "a share of the memory's"
    tops = chip.tops or constant("neural-engine.tops").value
    return Machine(bandwidth * 1e9, tops * 1e12, "neural-engine", f"Neural Engine of {chip.title}, bandwidth {words}")


def gpu(chip: Chip) -> Machine:
    """The GPU of an Apple chip, whose throughput goes with its bandwidth."""
    throughput = chip.bandwidth_gb_s * 1e9 * constant("gpu.operations_per_byte").value
    return Machine(chip.bandwidth_gb_s * 1e9, throughput, "gpu", f"GPU of {chip.title}")


def core_operations(cores: Cores, isa: tuple[str, ...]) -> float:
    """Peak operations a second of one core: pipes of 128 bits x operations of an instruction x clock."""
    facts = _core_facts()
    pipes, ghz = facts.get(cores.core) or facts[KIND + cores.kind]
    width = "i8mm" if "i8mm" in isa else "dotprod" if "dotprod" in isa else "float"
    return pipes * ghz * 1e9 * constant(f"cpu.{width}_operations").value


@cache
def _core_facts() -> dict[str, tuple[float, float]]:
    fields = {
        "names": Field("names", "a list of cores", least=1),
        "pipes": Field("number", "128-bit pipes", least=1, most=64),
        "ghz": Field("number", "GHz", least=0.1, most=10),
        "source": Field("text", "where it comes from"),
    }
    found: dict[str, tuple[float, float]] = {}
    for entry in entries(CORES, "core"):
        values = checked(entry, fields, CORES.name)
        found |= dict.fromkeys(values["names"], (values["pipes"], values["ghz"]))
    return found
