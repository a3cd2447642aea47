"""What is known to fail or misbehave on devices, looked for in a package: rules from devices/rules, a function each."""

from __future__ import annotations

from satchel.runtime.coreml.checks.judge import CHECKS, check_package, judge
from satchel.runtime.coreml.checks.report import Finding, Report, Unjudged
from satchel.runtime.coreml.checks.target import Target, resolve_target

__all__ = ["CHECKS", "Finding", "Report", "Target", "Unjudged", "check_package", "judge", "resolve_target"]
