"""What the planner looks at: a device and a model, and which rules hold for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

from satchel.devices.plan import ModelShape
from satchel.devices.profile import DeviceProfile
from satchel.devices.rulebook import Rule, load_rules, rule

APPLE = ("ios", "macos")


@dataclass(frozen=True)
class Place:
    """A device, as a plan sees it.

    Attributes:
        profile: facts of the device.
    """

    profile: DeviceProfile

    @property
    def apple(self) -> bool:
        """Whether Core ML is there."""
        return self.profile.os in APPLE

    @cached_property
    def ios(self) -> int:
        """The iOS version whose Core ML the device has; a Mac's is that of the same year. 0 where there is none."""
        return max((int(r.ios) for r in self._targets()), default=0)

    @cached_property
    def coreml(self) -> Rule:
        """The newest of Core ML's targets that the device has and Satchel writes; the oldest on older systems."""
        written = [r for r in self._targets() if "opset" in r.parameters]
        return written[-1] if written else opsets()[0]

    def holds(self, identifier: str) -> bool:
        """Whether a rule speaks of this device."""
        p = self.profile
        return rule(identifier).holds(ios=self.ios, engine=p.engine, isa=p.isa, os=p.os)

    def _targets(self) -> list[Rule]:
        mac, version = self.profile.os == "macos", self.profile.os_version
        return [r for r in known_targets() if self.apple and (r.number("macos") if mac else r.ios) <= version]


@dataclass(frozen=True)
class Target(Place):
    """A device, and a decoder for it.

    Attributes:
        shape: counts of the model.
    """

    shape: ModelShape


@cache
def known_targets() -> tuple[Rule, ...]:
    """Rules of Core ML's targets, the oldest first."""
    return load_rules("core-ml-targets")


def opsets() -> list[Rule]:
    """Those that Satchel writes."""
    return [r for r in known_targets() if "opset" in r.parameters]
