"""What would leave the Neural Engine, from the plan and the rules alone, before there is a program.

A forecast: once there is one, `satchel coreml placement` looks at its ops, and only a Mac's MLComputePlan is proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from satchel.devices.forecast.weights import by_coreml, file_bytes, runtime_of
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.profile import DeviceProfile
from satchel.devices.rulebook import Rule, load_rules


@dataclass(frozen=True)
class Leaving:
    """One finding.

    Attributes:
        what: the part of the model.
        why: with its figures.
        rule: id, such as "NE11a".
        severity: the rule's.
    """

    what: str
    why: str
    rule: str
    severity: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"what": self.what, "why": self.why, "rule": self.rule, "severity": self.severity}


def leaving_engine(
    profile: DeviceProfile, plan: Plan, shape: ModelShape, *, bits: int | None = None
) -> tuple[Leaving, ...]:
    """What of a plan does not run on the device's engine; () where the device has none, or the plan is for the CPU."""
    if not profile.engine or not by_coreml(plan):
        return ()
    return tuple(_findings(profile, plan, shape, bits))


def leaving_module(profile: DeviceProfile, plan: Plan, stored: int, table: int) -> tuple[Leaving, ...]:
    """The same of a traced module.

    Args:
        profile, plan: as leaving_engine.
        stored: bytes of its weights in the file.
        table: numbers of its largest embedding; 0 for none.
    """
    if not profile.engine or not by_coreml(plan):
        return ()
    found = [*_whole(plan)]
    if runtime_of(plan) == "neural-engine":
        found += [*_gather(profile, table), *_program(stored), *_weights(profile, plan)]
    return tuple(found)


def _findings(profile: DeviceProfile, plan: Plan, shape: ModelShape, bits: int | None) -> Iterator[Leaving]:
    yield from _whole(plan)
    if runtime_of(plan) != "neural-engine":
        return
    yield from _embedding(profile, plan, shape)
    yield from _axes(profile, plan, shape)
    yield from _sizes(plan, shape, bits)
    yield from _cache(plan, shape)
    yield from _weights(profile, plan)


def _whole(plan: Plan) -> Iterator[Leaving]:
    """What keeps the whole model from the engine."""
    if plan["weights"] in ("int4", "source"):
        yield _leaves("NE15", "the whole model", f"{plan['weights']} weights have scales by block")
    elif plan["weights"] == "fp32":
        yield _leaves("NE05a", "the whole model", "fp32 weights")
    elif runtime_of(plan) != "neural-engine":
        reason = next((c.reason for c in plan.choices if c.role in ("layout", "compute")), "as planned")
        yield _leaves("NE25", "the whole model", reason)


def _embedding(profile: DeviceProfile, plan: Plan, shape: ModelShape) -> Iterator[Leaving]:
    if plan.get("embedding", "gather").startswith("host"):
        return
    yield from _gather(profile, shape.vocab_size * shape.hidden_size)


def _gather(profile: DeviceProfile, table: int) -> Iterator[Leaving]:
    if table and profile.engine in _rule("NE11a").engines:
        yield _leaves("NE11a", "the embedding's gather", f"a table of {table / 1e6:.0f} MB on {profile.engine}")
    elif table and table >= _rule("NE11b").number("least_bytes"):
        yield _leaves("NE11b", "the embedding's gather, perhaps", f"a table of {table / 1e6:.0f} MB inside the program")


def _axes(profile: DeviceProfile, plan: Plan, shape: ModelShape) -> Iterator[Leaving]:
    cap = next(r for r in _rules().values() if r.check == "axis_cap" and profile.engine in r.engines)
    head = plan.get("lm_head", "whole")
    parts = int(head.removeprefix("split")) if head.startswith("split") else 1
    if shape.vocab_size / parts > cap.number("channels"):
        rows = -(-shape.vocab_size // parts)
        yield _leaves(cap.id, "the head", f"{rows} rows in a part, beyond {cap.number('channels')} channels")
    longest = cap.number("spatial")
    if plan.context_length > longest:
        yield _leaves(cap.id, "attention", f"a context of {plan.context_length} tokens on an axis of {longest}")


def _sizes(plan: Plan, shape: ModelShape, bits: int | None) -> Iterator[Leaving]:
    chunks = int(plan.get("chunks", "1")) if plan.get("chunks", "1").isdecimal() else 1
    yield from _program(file_bytes(plan, shape, bits) / chunks)


def _program(each: float) -> Iterator[Leaving]:
    for name in ("NE19b", "NE19a"):
        most = _rule(name).number("most_bytes")
        if each > most:
            why = f"{each / 1e6:,.0f} MB of weights in a program, beyond {most / 1e6:,.0f}"
            yield _leaves(name, "the whole model", why)
            return


def _cache(plan: Plan, shape: ModelShape) -> Iterator[Leaving]:
    if plan.get("cache", "io") != "state":
        return
    multiple, most = _rule("NE21a").number("multiple"), _rule("NE21c").number("most")
    if shape.head_dim % multiple:
        yield _leaves("NE21a", "the cache", f"a head of {shape.head_dim}, which is no multiple of {multiple}")
    if plan.prefill_length > most and plan.get("cache_write", "") == "slice_update":
        yield _leaves(
            "NE21c", "writes of a prompt to the cache", f"{plan.prefill_length} tokens at once, beyond {most}"
        )


def _weights(profile: DeviceProfile, plan: Plan) -> Iterator[Leaving]:
    if profile.engine in _rule("NE14").engines and plan["weights"] in ("int8", "palette"):
        what = "all weights" if plan["weights"] == "int8" else "embedding and head, which have 8-bit codes"
        yield _leaves("NE14", what, "run as fp16: int8 weights are expanded on this engine")


def _leaves(rule: str, what: str, why: str) -> Leaving:
    return Leaving(what, why, rule, _rule(rule).severity)


@cache
def _rules() -> dict[str, Rule]:
    return {rule.id: rule for rule in load_rules("neural-engine")}


def _rule(name: str) -> Rule:
    return _rules()[name]
