"""The packages that a command is given: one, or those of a bundle, which says besides what they are for."""

from __future__ import annotations

from pathlib import Path

from satchel.runtime.bundle import MANIFEST
from satchel.runtime.errors import FormatError
from satchel.runtime.module.bundle import ModuleBundle, open_any


def packages_at(path: Path, target: str | None) -> tuple[list[Path], str | None]:
    """The packages at a path, and what they are judged for: a bundle's device where no other target is named.

    Raises:
        BundleError: a bundle that is not whole.
        FormatError: a bundle of another format.
    """
    if not (path / MANIFEST).is_file():
        return [path], target
    bundle = open_any(path, verify=False)
    plan = bundle.manifest.plan
    if plan.format != "coreml":
        raise FormatError("the bundle holds no Core ML package", got=plan.format, wanted="coreml")
    if isinstance(bundle, ModuleBundle):
        paths = [file.path for file in bundle.manifest.module.files.values()]
    else:
        paths = list(bundle.manifest.entry.paths)
    return [path / name for name in paths], target or plan.device
