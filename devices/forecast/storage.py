"""Download and install size of a plan, against what stores allow (limits.toml)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError
from satchel.devices.forecast.constants import checked, constant, entries
from satchel.devices.forecast.weights import by_coreml, expanded, file_bytes, runtime_of
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.profile import KNOWN, DeviceProfile
from satchel.devices.strict_toml import Field

FILE = Path(__file__).parent / "limits.toml"
GB = 1_000_000_000


@dataclass(frozen=True)
class Limit:
    """What a store allows.

    Attributes:
        id: such as "ios-app".
        os: "ios", "macos", "android" or "linux".
        way: how the model gets onto the device.
        gb: the most, in units of 10^9 bytes.
        counts: "install" (on the device, uncompressed) or "download".
        of: "file" (one file or pack) or "whole".
        first_os: version that it exists from; 0 for every one.
        confidence: "H", "M" or "L".
        source: where it comes from.
    """

    id: str
    os: str
    way: str
    gb: float
    counts: str
    of: str
    first_os: int
    confidence: str
    source: str


FIELDS = {
    "id": Field("text", "such as ios-app"),
    "os": Field("text", "an operating system", allowed=KNOWN["os"]),
    "way": Field("text", "how the model gets onto the device"),
    "gb": Field("number", "a number of GB", least=0.001, most=1_000_000),
    "counts": Field("text", "install or download", allowed=("install", "download")),
    "of": Field("text", "file or whole", allowed=("file", "whole")),
    "first_os": Field("whole", "a major version, 0 for every one", most=999),
    "confidence": Field("text", "H, M or L", allowed=("H", "M", "L")),
    "source": Field("text", "where it comes from"),
}


@dataclass(frozen=True)
class Storage:
    """Sizes in bytes.

    Attributes:
        bundle: what an export writes.
        library: of the runtime that the app carries.
        made: what the system makes of it at the first load, and keeps.
        ways: each way to deliver it: (limit, whether it is within).
    """

    bundle: int
    library: int
    made: int
    ways: tuple[tuple[Limit, bool], ...]

    @property
    def install(self) -> int:
        """Bytes in the app; what the system makes later not counted."""
        return self.bundle + self.library

    @property
    def best(self) -> str:
        """The first way that it is within, or "" where there is none."""
        return next((limit.way for limit, within in self.ways if within), "")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        ways = [
            {"id": limit.id, "way": limit.way, "limit_gb": limit.gb, "within": within, "source": limit.source}
            for limit, within in self.ways
        ]
        return {
            "download_bytes": self.install, "install_bytes": self.install, "bundle_bytes": self.bundle,
            "made_at_first_load_bytes": self.made, "deliver": self.best, "ways": ways,
        }  # fmt: skip


def storage_of(
    profile: DeviceProfile, plan: Plan, shape: ModelShape, *, bits: int | None = None, tokenizer_bytes: int = 0
) -> Storage:
    """Sizes of a plan.

    Args:
        profile, plan, shape, bits: as memory_of.
        tokenizer_bytes: of tokenizer.json; estimated from the vocabulary where it is 0.
    """
    tokenizer = tokenizer_bytes or int(constant("tokenizer.file_bytes_per_id").value * shape.vocab_size)
    weights = file_bytes(plan, shape, bits)
    layers = shape.layers + (shape.tower.layers if shape.tower else 0)
    bundle = weights + tokenizer + int(constant("package.layer_bytes").value * layers)
    return storage_for(profile, plan, bundle, _made(profile, plan, shape, weights))


def storage_for(profile: DeviceProfile, plan: Plan, bundle: int, made: int) -> Storage:
    """The same of a bundle's size, and of what the system makes of it."""
    library = int(constant(f"package.{runtime_of(plan)}_bytes").value)
    limits = [x for x in load_limits() if x.os == profile.os and x.first_os <= profile.os_version]
    sizes = {"whole": bundle + library, "file": bundle}
    return Storage(bundle, library, made, tuple((limit, sizes[limit.of] <= limit.gb * GB) for limit in limits))


def _made(profile: DeviceProfile, plan: Plan, shape: ModelShape, weights: int) -> int:
    """Core ML keeps a copy that it made for the device, about as large as what it holds."""
    if not by_coreml(plan):
        return 0
    return 2 * shape.all_parameters if expanded(plan, profile.engine) else weights


def read_limits(path: Path) -> tuple[Limit, ...]:
    """The limits of a file.

    Raises:
        DeviceError: it cannot be read, or has a key or value that is not known, or an id twice.
    """
    limits = tuple(Limit(**checked(entry, FIELDS, path.name)) for entry in entries(path, "limit"))
    ids = [limit.id for limit in limits]
    if len(set(ids)) != len(ids):
        raise DeviceError(f"ids in {path.name}", got=ids, wanted="each once")
    return limits


@cache
def load_limits() -> tuple[Limit, ...]:
    """The limits that come with Satchel."""
    return read_limits(FILE)
