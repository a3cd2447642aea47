"""The closed set of Satchel's errors. Nothing else is raised on purpose for a user's input.

Exit codes of the command: `ValidationError` is 1, every other one is 2.
"""

from __future__ import annotations

from satchel.devices.errors import DeviceError, PlanError, SatchelError


class CheckpointError(SatchelError):
    """A checkpoint that is missing, truncated, of an unsupported kind, or holds impossible values."""


class TokenizerError(SatchelError):
    """A tokenizer that is missing or does not fit the model."""


class BundleError(SatchelError):
    """A bundle that is incomplete, altered, of an unknown schema, or points outside itself."""


class FormatError(SatchelError):
    """A model file (Core ML, ONNX, ExecuTorch) that cannot be read, written or executed."""


class MissingPackageError(SatchelError):
    """A Python package that this step needs and that is not installed."""


class OutputError(SatchelError):
    """Output that cannot be written: no space, no permission, or something in the way."""


class UsageError(SatchelError):
    """Arguments that contradict each other or are out of range."""


class ValidationError(SatchelError):
    """A bundle whose figures are beyond its limits."""


__all__ = [
    "BundleError",
    "CheckpointError",
    "DeviceError",
    "FormatError",
    "MissingPackageError",
    "OutputError",
    "PlanError",
    "SatchelError",
    "TokenizerError",
    "UsageError",
    "ValidationError",
]
