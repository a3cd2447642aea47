"""Published speeds of models on devices (published.toml), and what the forecast says of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from satchel.devices.errors import DeviceError
from satchel.devices.forecast.constants import checked, entries
from satchel.devices.forecast.models import known_model
from satchel.devices.forecast.speed import Machine, Speed, Work, cpu, forecast, gpu
from satchel.devices.forecast.weights import count
from satchel.devices.profile import load_device
from satchel.devices.strict_toml import Field

FILE = Path(__file__).parent / "published.toml"
FILLED = 128
"""Tokens in the cache: such figures are of short answers."""
CACHE_BYTES = 4


@dataclass(frozen=True)
class Figure:
    """One published measurement.

    Attributes:
        model: name in models.toml.
        device: a profile's name.
        runtime: "xnnpack" or "coreml-gpu".
        linear_bits, head_bits: of a weight that a token reads, scales counted.
        decode, prefill: tokens a second; 0 where not published.
        prompt: tokens of the prompt.
        memory_mb: of the process, in units of 10^6 bytes; 0 where not published.
        fitted: "yes" where the constants were fitted to it, "no" where they are only judged by it.
        at_least: "yes" where decode is a lower bound.
        source: where it was published.
        unsure: what is doubtful about it, "" for nothing.
    """

    model: str
    device: str
    runtime: str
    linear_bits: float
    head_bits: float
    decode: float
    prefill: float
    prompt: int
    memory_mb: float
    fitted: str
    at_least: str
    source: str
    unsure: str

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.model}, {self.linear_bits:g} bits, {self.device}"


FIELDS = {
    "model": Field("text", "a model of models.toml"),
    "device": Field("text", "a profile's name"),
    "runtime": Field("text", "what executed it", allowed=("xnnpack", "coreml-gpu")),
    "linear_bits": Field("number", "bits of a weight of the linears", least=1, most=32),
    "head_bits": Field("number", "bits of a weight of the head", least=1, most=32),
    "decode": Field("number", "tokens a second", least=0.01, most=1e6),
    "prefill": Field("number", "tokens a second, 0 where not published", default=0.0, most=1e6),
    "prompt": Field("whole", "tokens of the prompt", default=64, least=1),
    "memory_mb": Field("number", "MB of the process, 0 where not published", default=0.0, most=1e6),
    "fitted": Field("text", "yes or no", allowed=("yes", "no")),
    "at_least": Field("text", "yes or no", default="no", allowed=("yes", "no")),
    "source": Field("text", "where it was published"),
    "unsure": Field("text", "what is doubtful", default=""),
}


def read_published(path: Path) -> tuple[Figure, ...]:
    """The figures of a file.

    Raises:
        DeviceError: it cannot be read, has a key or value that is not known, or names an unknown model or device.
    """
    figures = tuple(Figure(**checked(entry, FIELDS, path.name)) for entry in entries(path, "figure"))
    if not figures:
        raise DeviceError(f"{path.name} is empty", got="no [[figure]]", wanted="published figures")
    if len(set(figures)) != len(figures):
        raise DeviceError(f"{path.name} has a figure twice", got=len(figures), wanted="each once")
    for figure in figures:
        known_model(figure.model)
        load_device(figure.device)
    return figures


@cache
def published() -> tuple[Figure, ...]:
    """The figures that come with Satchel."""
    return read_published(FILE)


def work_of(figure: Figure, *, prompt: int = 0) -> Work:
    """What a token of an answer costs, or a prompt of so many tokens."""
    shape = known_model(figure.model).shape
    counts = count(shape)
    weights = (counts.linears * figure.linear_bits + counts.head * figure.head_bits) / 8
    if prompt:
        operations = 2 * counts.linears * prompt + 2 * counts.head
        return Work(weights, operations, shape.layers, prompt)
    cached = 2 * shape.key_channels * FILLED * CACHE_BYTES
    return Work(weights + cached, 2 * (counts.linears + counts.head), shape.layers, 1)


def machine_of(figure: Figure) -> Machine:
    """What it ran on; fp16 weights are multiplied as floats."""
    chip = load_device(figure.device).chip
    return cpu(chip, wide=figure.linear_bits >= 16) if figure.runtime == "xnnpack" else gpu(chip)


def forecast_of(figure: Figure) -> tuple[Speed, Speed | None]:
    """(decode, prefill or None) as the forecast has them."""
    machine = machine_of(figure)
    prefill = forecast(work_of(figure, prompt=figure.prompt), machine) if figure.prefill else None
    return forecast(work_of(figure), machine), prefill
