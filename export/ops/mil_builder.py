"""coremltools, imported once and without its notices.

On import it logs that Core ML itself is missing off the Mac, and that torch is newer than what it was tested with. Its
tracing front end is not used here, so neither matters to a reader of our output.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from satchel.runtime.quiet import quiet_imports

with quiet_imports():
    import coremltools as ct
    from coremltools.converters.mil.backend.mil.helper import create_file_value_tensor, types_to_proto_primitive
    from coremltools.converters.mil.backend.mil.load import (
        CoreMLProtoExporter,
        MILProtoExporter,
        should_use_weight_file,
    )
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, Var, types
    from coremltools.libmilstoragepython import _BlobStorageWriter as BlobStorageWriter

logging.getLogger("coremltools").setLevel(logging.ERROR)

TARGETS = {"iOS16": ct.target.iOS16, "iOS17": ct.target.iOS17, "iOS18": ct.target.iOS18}
"""Deployment targets by the plan's names."""


_DEFAULTS: dict[str, dict[str, Any]] = {
    "concat": {"interleave": False},
    "conv": {"strides": [1, 1], "pad_type": "valid", "pad": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1},
    "matmul": {"transpose_x": False, "transpose_y": False},
}
"""What coremltools would add to each op as a constant of its own."""


class Emitter:
    """`mb` for one function, making each small constant once: otherwise two ops of three are constants."""

    def __init__(self) -> None:
        self._constants: dict[tuple[str, str], Var] = {}

    def __getattr__(self, op: str) -> Callable[..., Any]:
        def emit(**given: Any) -> Any:
            inputs = _DEFAULTS.get(op, {}) | given
            return getattr(mb, op)(**{name: self._shared(name, value) for name, value in inputs.items()})

        return emit

    def _shared(self, name: str, value: Any) -> Any:
        if name in ("name", "values", "state") or isinstance(value, Var):
            return value
        key = (type(value).__name__, repr(value))
        if key not in self._constants:
            self._constants[key] = mb.const(val=value)
        return self._constants[key]


@contextmanager
def fresh_names() -> Iterator[None]:
    """Numbers ops from 0, whatever was built before in this process, so that the same model gives the same bytes."""
    kept, mb.name_count = mb.name_count, defaultdict(int)
    try:
        yield
    finally:
        mb.name_count = kept


__all__ = [
    "TARGETS",
    "BlobStorageWriter",
    "CoreMLProtoExporter",
    "Emitter",
    "Function",
    "MILProtoExporter",
    "Program",
    "Var",
    "create_file_value_tensor",
    "ct",
    "fresh_names",
    "mb",
    "should_use_weight_file",
    "types",
    "types_to_proto_primitive",
]
