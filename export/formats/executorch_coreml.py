"""ExecuTorch's Core ML delegate: our own Core ML program as the payload of a delegate call.

The program is the one that formats/coreml.py builds, LUTs and all, with its cache in Core ML's states. ExecuTorch's own
route (torch.export, coremltools' converter) is not taken: it traces, and puts random identifiers into the file.

The delegate holds states for one function only, so there is one call for one token; the LLM runner then feeds a prompt
token by token. It converts the integers and floats of the call to what the program declares.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from satchel.devices.plan import Choice, Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.formats import coreml
from satchel.export.formats.coreml_chunks import Ids
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch import Delegate, Tensor
from satchel.export.ops.executorch_tools import CompileSpec
from satchel.export.ops.xnnpack import Blob
from satchel.export.progress import Progress
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec
from satchel.runtime.quiet import quiet_imports

LAYOUT = {
    "target": ("iOS18", "the delegate keeps the cache in states"),
    "layout": ("channels_first", "(B, C, 1, S) pads nothing on the last axis"),
    "cache": ("state", "ExecuTorch passes no cache to the delegate"),
    "attention": ("per_head", "the fused op gave infinities on the engine"),
    "compute": ("cpuAndNeuralEngine", "codes stay 4 bits on the engine"),
    "chunks": ("1", "a payload is one package"),
    "tied_head": ("shared", "the head's blobs point into the embedding's bytes"),
}
"""What the Core ML program is asked for where the plan, made for ExecuTorch, says nothing."""
COMPUTE_UNITS = {"cpuAndNeuralEngine": "CPU_AND_NE", "cpuAndGPU": "CPU_AND_GPU", "cpuOnly": "CPU_ONLY", "all": "ALL"}
ROOT = "lowered_module"
WIDEST_HEAD = 16384
"""Output channels that one convolution of the engine has."""


class CoremlDelegate(Delegate):
    """The call of Core ML; `args` are what the program takes, and then what it gives."""

    def __init__(self, args: list[Tensor], folder: Path, compute: str) -> None:
        super().__init__(args, "CoreMLBackend", compile_specs(compute))
        self._folder = folder

    def payload(self) -> list[Blob | bytes]:
        """The folder's files and the list of them."""
        return list(flatten(self._folder))


def write_package(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress,
    *,
    embedded: bool = False,
) -> ModelEntry:
    """Writes the package and what the delegate must know of it into `folder`; returns how the package is called.

    With `embedded` it takes rows of the embedding instead of ids.
    """
    ids: Ids = "none" if embedded else "within"
    entry = coreml.write(folder, weights, config, coreml_plan(plan, config), info, progress, ids=ids)
    if entry.options["cache"] != "state":
        raise FormatError(
            "the Core ML delegate keeps its cache in states, which hold fp16",
            got="weights of 32 bits", wanted="palette, int8 or fp16", hint="choose other weights, or format coreml",
        )  # fmt: skip
    describe_package(folder / entry.path, entry.inputs, entry.outputs)
    return entry


def describe_package(package: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Writes metadata.json beside a package: what the delegate must know of it."""
    content = hashlib.sha256((package / "Manifest.json").read_bytes()).digest()
    metadata = {
        "inputNames": [spec.name for spec in inputs],
        "outputNames": [spec.name for spec in outputs],
        "identifier": f"executorch_{uuid.UUID(bytes=content[:16])}",
    }
    (package.parent / "metadata.json").write_text(json.dumps(metadata, sort_keys=True))


def coreml_plan(plan: Plan, config: DecoderConfig) -> Plan:
    """The same plan in the roles of Core ML, one token a call; what it leaves open is settled here."""
    made = {
        role: Choice(role, value, reason, "ExecuTorch's Core ML delegate") for role, (value, reason) in LAYOUT.items()
    }
    if not _is_coreml_head(plan.get("lm_head", "")):
        parts = next(n for n in range(1, config.vocab_size + 1) if _divides(config.vocab_size, n))
        head = f"split{parts}" if parts > 1 else "whole"
        made["lm_head"] = Choice("lm_head", head, "wide heads are split", "neural-engine rule 23")
    own = {choice.role for choice in plan.choices} - {"target", *([] if "lm_head" not in made else ["lm_head"])}
    kept = tuple(choice for choice in plan.choices if choice.role in own)
    settled = tuple(choice for role, choice in made.items() if role not in own)
    return replace(plan, format="coreml", prefill_length=1, choices=(*kept, *settled))


def _is_coreml_head(value: str) -> bool:
    return value.startswith(("split", "whole"))


def _divides(vocabulary: int, parts: int) -> bool:
    return vocabulary % parts == 0 and vocabulary // parts <= WIDEST_HEAD


def compile_specs(compute: str) -> dict[str, bytes]:
    """What the delegate reads at load: the compute units, and how the payload is to be understood."""
    from satchel.export.ops.mil_builder import ct

    with quiet_imports():
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
    specs: list[CompileSpec] = CoreMLBackend.generate_compile_specs(
        compute_unit=getattr(ct.ComputeUnit, COMPUTE_UNITS[compute]), minimum_deployment_target=ct.target.iOS18
    )
    return {spec.key: bytes(spec.value) for spec in specs}


def flatten(folder: Path) -> Iterator[Blob | bytes]:
    """The delegate's in-memory file system: the files' bytes, then the list of them as JSON, back to front.

    ExecuTorch's own tool lists files in the order of the disk; here they go by name. A folder comes after what is in
    it, and the whole folder last. (executorch/backends/apple/coreml/runtime/inmemoryfs)
    """
    nodes: list[dict[str, Any]] = []
    files: list[Path] = []
    _list(folder, ROOT, nodes, files, 0)
    for file in files:
        yield Blob(str(file), file.stat().st_size, partial(np.memmap, file, np.uint8, "r"))
    yield json.dumps({"nodes": nodes}, separators=(",", ":"), sort_keys=True).encode()[::-1]


def _list(path: Path, name: str, nodes: list[dict[str, Any]], files: list[Path], offset: int) -> int:
    """Adds the nodes of a path; returns the offset after its files."""
    node: dict[str, Any] = {"name": name, "children": {}, "dataRegion": {"offset": 0, "size": 0}}
    if path.is_file():
        size = path.stat().st_size
        nodes.append(node | {"kind": 0, "dataRegion": {"offset": offset, "size": size}})
        files.append(path)
        return offset + size
    for child in sorted(path.iterdir()):
        offset = _list(child, child.name, nodes, files, offset)
        node["children"][child.name] = len(nodes) - 1
    nodes.append(node | {"kind": 1})
    return offset
