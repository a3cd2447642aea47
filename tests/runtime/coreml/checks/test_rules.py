"""Every rule on a small program that breaks it, and on its neighbour that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from rule_cases import CASES
from rule_programs import RULES, judged

from satchel.devices.rulebook import NO_CHECK
from satchel.runtime.coreml.checks import CHECKS


@pytest.mark.parametrize("rule", sorted(CASES))
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule: str, tmp_path: Path) -> None:
    case = CASES[rule]
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    bad = judged(case.bad(tmp_path / "bad"), rule, case.target, case.settings)
    good = judged((case.good or case.bad)(tmp_path / "good"), rule, case.good_target, case.good_settings)
    found = [f for f in bad.findings if f.rule.id == rule]
    assert found
    assert rule not in {f.rule.id for f in good.findings}
    assert all(f.found.what for f in found)
    assert bad.failed is any(f.severity == "error" for f in bad.findings)


def test_every_rule_has_a_check_of_its_name_or_a_reason() -> None:
    with_check = {rule.id for rule in RULES.values() if rule.check != NO_CHECK}
    assert set(CHECKS) == with_check == set(CASES)
    for identifier, check in CHECKS.items():
        assert RULES[identifier].check == check.__name__
    for rule in RULES.values():
        assert bool(rule.reason) is (rule.check == NO_CHECK)
        assert all((rule.statement, rule.why, rule.advice, rule.source))
    numbers = {rule.id[2:4] for rule in RULES.values() if rule.id.startswith("NE")}
    assert numbers == {f"{n:02}" for n in range(1, 29)}


def test_ops_by_system_are_those_of_coremltools() -> None:
    parameters = RULES["CM03"].parameters
    first = {name: max(15, int(min(versions).name.removeprefix("iOS"))) for name, versions in core_ops().items()}
    for system in (15, 16, 17, 18):
        ours = set(parameters[f"ios{system}"]) - {"write_state"}  # how a saved program spells coreml_update_state
        assert ours == {name for name, version in first.items() if version == system}
    known = {name for names in parameters.values() for name in names}
    for rule in RULES.values():
        assert set(rule.parameters.get("ops", ())) <= known
        assert set(rule.parameters.get("through", ())) <= known
        assert set(rule.parameters.get("ends", ())) <= known


def core_ops() -> dict[str, Any]:
    return {n: v for n, v in SSAOpRegistry.core_ops.items() if n not in ("_const_symbolic", "coreml_update_state")}
