"""ExecuTorch's schemas and serializers, imported once and without its notices."""

from __future__ import annotations

from satchel.runtime.quiet import quiet_imports

with quiet_imports():
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as xnn
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary
    from executorch.exir import schema
    from executorch.exir._serialize._flatbuffer_program import _program_to_flatbuffer as program_to_flatbuffer
    from executorch.exir.backend.compile_spec_schema import CompileSpec
    from executorch.exir.scalar_type import ScalarType

__all__ = ["CompileSpec", "ScalarType", "program_to_flatbuffer", "schema", "serialize_xnnpack_binary", "xnn"]
