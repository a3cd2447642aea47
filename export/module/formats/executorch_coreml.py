"""A module for ExecuTorch's Core ML delegate: the package of formats/coreml.py as the payload of one call.

ExecuTorch's own partitioner would have coremltools convert the program once more, without our palette's codes, and puts
random identifiers into the file. The package, the payload and the file around it are those of the decoders' route.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from satchel.devices.plan import Choice
from satchel.export.formats.executorch_coreml import CoremlDelegate, describe_package
from satchel.export.formats.executorch_program import Method
from satchel.export.formats.pte import write_pte
from satchel.export.module.formats import Request, Written, coreml
from satchel.export.ops.executorch import Tensor
from satchel.export.progress import silent
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec

METHOD = "forward"
TARGET = Choice("target", "iOS18", "the delegate's specification", "CH12")


def write_delegated(folder: Path, request: Request) -> Written:
    """Writes `<name>.pte`; arguments and errors as write_module has them."""
    choices = tuple(TARGET if choice.role == "target" else choice for choice in request.plan.choices)
    plan, path = replace(request.plan, format="coreml", choices=choices), f"{request.name}.pte"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        written = coreml.write(Path(scratch), replace(request, plan=plan))
        file = written.file
        describe_package(Path(scratch, file.path), file.inputs, file.outputs)
        inputs, outputs = _tensors(file.inputs), _tensors(file.outputs)
        call = CoremlDelegate([*inputs, *outputs], Path(scratch), plan["compute"])
        write_pte(folder / path, [Method(METHOD, [call], inputs, outputs)], [], silent)
    options = {"method": METHOD, "target": "coreml", "package": dict(file.options)}
    return Written(replace(file, path=path, options=options), written.schemes)


def _tensors(specs: Sequence[TensorSpec]) -> list[Tensor]:
    found = []
    for spec in specs:
        sizes = [size for size in spec.shape if isinstance(size, int)]
        if len(sizes) != len(spec.shape):
            raise FormatError("the Core ML delegate takes one size", got=f"{spec.name} {spec.shape}", wanted="fixed")
        found.append(Tensor(tuple(sizes), spec.dtype))
    return found
