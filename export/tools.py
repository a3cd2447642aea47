"""The versions of the packages that wrote a bundle."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

ALWAYS = ("satchel", "numpy", "torch", "transformers")
BY_FORMAT = {"coreml": ("coremltools",), "onnx": ("onnx", "onnx-ir"), "executorch": ("executorch",)}


def tool_versions(format: str | None = None) -> dict[str, str]:
    """Package -> version, of those that matter to a format, or to the weights alone."""
    names = (*ALWAYS, *BY_FORMAT[format]) if format else (*ALWAYS, "numba")
    return {name: found for name in names if (found := _version(name))}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
