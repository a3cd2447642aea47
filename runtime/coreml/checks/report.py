"""What judging a package gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from satchel.devices.rulebook import SEVERITIES, Rule
from satchel.runtime.coreml.checks.subject import Found
from satchel.runtime.coreml.checks.target import Target


@dataclass(frozen=True)
class Finding:
    """A rule that is broken, and where.

    Attributes:
        rule: which one.
        found: what and where.
    """

    rule: Rule
    found: Found

    @property
    def severity(self) -> str:
        """The rule's, unless the place says otherwise."""
        return self.found.severity or self.rule.severity

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "rule": self.rule.id,
            "severity": self.severity,
            "function": self.found.function,
            "op_type": self.found.op_type,
            "op": self.found.op,
            "found": self.found.what,
            "statement": self.rule.statement,
            "why": self.rule.why,
            "advice": self.rule.advice,
            "engines": list(self.rule.engines),
            "confidence": self.rule.confidence,
            "source": self.rule.source,
        }


@dataclass(frozen=True)
class Unjudged:
    """A rule that could not be judged, and why.

    Attributes:
        rule: its id.
        reason: why not.
    """

    rule: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What was found in a package.

    Attributes:
        path: of the package.
        target: what it was judged for.
        judged: ids of the rules that it was judged by.
        findings: what is broken, in the order of the rules.
        unjudged: what could not be told.
    """

    path: str
    target: Target
    judged: tuple[str, ...]
    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]

    def count(self, severity: str) -> int:
        """How many findings there are of a severity."""
        return sum(f.severity == severity for f in self.findings)

    @property
    def failed(self) -> bool:
        """Whether a rule of severity "error" is broken."""
        return self.count("error") > 0

    def grouped(self) -> list[list[Finding]]:
        """Findings of one rule, severity, function and op type together, the most severe first."""
        groups: dict[tuple[str, str, str, str], list[Finding]] = {}
        for f in self.findings:
            groups.setdefault((f.rule.id, f.severity, f.found.function, f.found.op_type), []).append(f)
        return sorted(groups.values(), key=lambda group: SEVERITIES.index(group[0].severity))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "path": self.path,
            "target": asdict(self.target),
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "judged": list(self.judged),
            "findings": [f.to_json() for f in self.findings],
            "unjudged": [asdict(u) for u in self.unjudged],
        }
