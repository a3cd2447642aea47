"""Whether a plan fits: what it needs in memory against what an app may use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.engine import Leaving, leaving_engine
from satchel.devices.forecast.loading import Loading, loading_of
from satchel.devices.forecast.memory import PERHAPS, Memory, memory_of
from satchel.devices.forecast.speed import Speed, decode_speed, prefill_speed
from satchel.devices.forecast.storage import GB, Storage, storage_of
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.planner import make_plan
from satchel.devices.profile import DeviceProfile

FITS, ENTITLED, NO = "fits", "fits only with the entitlement", "does not fit"
TIGHT = 0.9
"""Share of the limit from which on a fit is called tight: the figures are no better than that."""


@dataclass(frozen=True)
class Request:
    """What is asked for; None leaves a choice to the planner.

    Attributes:
        format, weights, context: as make_plan has them.
        bits: of every linear of a palette or int4; None for the mixture that an export makes.
        by_loss: as make_plan.
        tokenizer_bytes: of tokenizer.json, 0 where unknown.
        overrides: (role, value) of choices that are settled, as make_plan has them.
    """

    format: str | None = None
    weights: str | None = None
    context: int | None = None
    bits: int | None = None
    by_loss: bool = True
    tokenizer_bytes: int = 0
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Allowance:
    """What an app may use before it is ended, in bytes.

    Attributes:
        plain: without Apple's increased-memory-limit entitlement.
        entitled: with it; equal elsewhere.
        source: where the two come from.
    """

    plain: int
    entitled: int
    source: str


@dataclass(frozen=True)
class Fit:
    """What can be said of any model on a device before it is exported."""

    device: str
    plan: Plan
    memory: Memory
    allowance: Allowance
    storage: Storage
    loading: Loading
    leaving: tuple[Leaving, ...]

    @property
    def verdict(self) -> str:
        """FITS, ENTITLED or NO."""
        return judged(self.memory.needed, self.allowance)

    @property
    def fits(self) -> bool:
        """Whether there is a way to run it, the entitlement counted."""
        return self.verdict != NO

    @property
    def perhaps(self) -> str:
        """The verdict if what reports disagree about were needed as well."""
        return judged(self.memory.needed + self.memory.of(PERHAPS), self.allowance)

    @property
    def tight(self) -> bool:
        """Whether it takes more than nine tenths of what it may."""
        limit = self.allowance.plain if self.verdict == FITS else self.allowance.entitled
        return self.fits and self.memory.needed > TIGHT * limit

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "device": self.device, "format": self.plan.format, "weights": self.plan["weights"],
            "verdict": self.verdict, "fits": self.fits, "tight": self.tight,
            "verdict_with_what_is_unsure": self.perhaps, "limit_bytes": self.allowance.plain,
            "limit_with_entitlement_bytes": self.allowance.entitled, "limit_source": self.allowance.source,
            "memory": self.memory.to_json(), "storage": self.storage.to_json(), "loading": self.loading.to_json(),
            "leaving_engine": [found.to_json() for found in self.leaving],
        }  # fmt: skip


@dataclass(frozen=True)
class Forecast(Fit):
    """All that can be said of a language model on a device before it is exported."""

    request: Request
    decode: Speed
    prefill: Speed

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return super().to_json() | {
            "bits": self.request.bits, "context_length": self.plan.context_length, "decode": self.decode.to_json(),
            "prefill": self.prefill.to_json(),
        }  # fmt: skip


def judged(needed: int, allowance: Allowance) -> str:
    """FITS, ENTITLED or NO."""
    if needed <= allowance.plain:
        return FITS
    return ENTITLED if needed <= allowance.entitled else NO


def allowance_of(profile: DeviceProfile) -> Allowance:
    """What an app may use on a device: the profile's figures, or a share of the memory where it names none."""
    if profile.app_memory_gb:
        entitled = max(profile.app_memory_entitled_gb, profile.app_memory_gb)
        return Allowance(int(profile.app_memory_gb * GB), int(entitled * GB), profile.source("app_memory_gb"))
    share = constant(f"share.{profile.os}")
    most = int(profile.memory_gb * share.value * GB)
    words = f"{share.value:g} of {profile.memory_gb:g} GB, confidence {share.confidence}: {share.source}"
    return Allowance(most, most, words)


def forecast(profile: DeviceProfile, shape: ModelShape, request: Request | None = None) -> Forecast:
    """Plans for a device, and says what would come of it.

    Raises:
        PlanError: the device cannot run what is asked for.
    """
    request = request or Request()
    plan = make_plan(
        profile, shape, format=request.format, weights=request.weights, context=request.context,
        by_loss=request.by_loss, overrides=dict(request.overrides),
    )  # fmt: skip
    return forecast_plan(profile, plan, shape, request)


def forecast_plan(profile: DeviceProfile, plan: Plan, shape: ModelShape, request: Request | None = None) -> Forecast:
    """The same of a plan that has been made."""
    request = request or Request()
    bits = request.bits
    return Forecast(
        profile.name, plan, memory_of(profile, plan, shape, bits=bits), allowance_of(profile),
        storage_of(profile, plan, shape, bits=bits, tokenizer_bytes=request.tokenizer_bytes),
        loading_of(plan, shape, bits), leaving_engine(profile, plan, shape, bits=bits),
        replace(request, format=plan.format, context=plan.context_length),
        decode_speed(profile, plan, shape, bits=bits), prefill_speed(profile, plan, shape, bits=bits),
    )  # fmt: skip
