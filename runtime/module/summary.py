"""What a bundle of a module says of itself, in short."""

from __future__ import annotations

from typing import Any

from satchel.runtime import strict_json
from satchel.runtime.module.bundle import ModuleBundle


def module_summary(bundle: ModuleBundle) -> dict[str, Any]:
    """The essentials of the manifest, as a JSON object."""
    m = bundle.manifest
    return {
        "model": m.model.model_id, "family": m.model.family, "license": m.model.license,
        "parameters": m.model.parameters, "device": m.plan.device, "format": m.format, "weights": m.weights.scheme,
        "task": m.module.task.name if m.module.task else "",
        "parts": {name: strict_json.encode(file) for name, file in m.module.files.items()},
        "bytes": bundle.bytes, "schema_version": m.schema_version, "tools": dict(m.tools),
    }  # fmt: skip


def describe_module(bundle: ModuleBundle) -> dict[str, Any]:
    """What `satchel inspect` shows, as a JSON object."""
    manifest = bundle.manifest.to_json()
    return {
        "kind": "bundle",
        "path": bundle.folder.name,
        **module_summary(bundle),
        "source": manifest["model"]["source"],
        "module": manifest["module"],
        "signature": [
            {"part": part, "way": way, "name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
            for part, file in bundle.manifest.module.files.items()
            for way, specs in (("input", file.inputs), ("output", file.outputs))
            for spec in specs
        ],
        "choices": manifest["plan"]["choices"],
        "schemes": manifest["weights"]["tensors"],
        "files": manifest["files"],
    }
