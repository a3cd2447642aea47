"""The manifest of a bundle: what is in it, where it came from, and how a model file is called. See FORMAT.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FormatName = Literal["coreml", "onnx", "executorch"]


@dataclass(frozen=True)
class TensorSpec:
    """One input, output or state of a model file.

    Attributes:
        name: as the file has it.
        shape: dimensions; a string names a dynamic one, such as "sequence".
        dtype: numpy's name, such as "float16" or "int64".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class ModelEntry:
    """How an app calls the model file.

    Attributes:
        format: which runtime reads it.
        path: of the file or .mlpackage folder, relative to the bundle.
        context_length: tokens that the cache holds, prompt and answer together.
        prefill_length: tokens of one prefill call; 0 where any length up to context_length may be given.
        inputs, outputs, states: the signature (of the decode function where there are two; prefill differs only in
            the length of the sequence).
        options: what the backend of this format needs besides, documented in FORMAT.md.
    """

    format: FormatName
    path: str
    context_length: int
    prefill_length: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from, and under which terms.

    Attributes:
        model_id: such as "HuggingFaceTB/SmolLM2-135M-Instruct", or the folder's name.
        family: the `model_type`.
        author: as the checkpoint says, or "".
        license: SPDX identifier or name as the checkpoint says; "unknown" where it says nothing.
        license_text: the full text, or "" where it is not known.
        source: what was read, such as "gguf" or "safetensors", with its sha256.
        parameters: count, a tied matrix counted once.
    """

    model_id: str
    family: str
    author: str
    license: str
    license_text: str
    source: str
    parameters: int
