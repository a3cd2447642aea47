"""coremltools, imported once and without its notices.

On import it logs that Core ML itself is missing off the Mac, and that torch is newer than what it was tested with. Its
tracing front end is not used here, so neither matters to a reader of our output.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

logging.getLogger("coremltools").setLevel(logging.CRITICAL)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil.backend.mil.helper import (  # noqa: E402
    create_file_value_tensor,
    types_to_proto_primitive,
)
from coremltools.converters.mil.backend.mil.load import CoreMLProtoExporter, MILProtoExporter  # noqa: E402
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import Function, Program, Var, types  # noqa: E402
from coremltools.libmilstoragepython import _BlobStorageWriter as BlobStorageWriter  # noqa: E402

logging.getLogger("coremltools").setLevel(logging.ERROR)

TARGETS = {"iOS16": ct.target.iOS16, "iOS17": ct.target.iOS17, "iOS18": ct.target.iOS18}
"""Deployment targets by the plan's names."""


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
    "Function",
    "MILProtoExporter",
    "Program",
    "Var",
    "create_file_value_tensor",
    "ct",
    "fresh_names",
    "mb",
    "types",
    "types_to_proto_primitive",
]
