"""The versions of the packages that wrote a bundle."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

ALWAYS = ("satchel", "numpy", "torch", "transformers")
BY_FORMAT = {"coreml": ("coremltools",), "onnx": ("onnx", "onnx-ir"), "executorch": ("executorch",)}


def tool_versions(format: str) -> dict[str, str]:
    """Package -> version, of those that matter to a format."""
    return {name: found for name in (*ALWAYS, *BY_FORMAT[format]) if (found := _version(name))}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
