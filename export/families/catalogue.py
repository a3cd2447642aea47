"""What is known of every family: models, options, files that are read and written, and what it was held against.

All of it follows from the families themselves. tests/export/families/test_features.py holds options to the cases that
are run, in every op set, and published models to their configurations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from satchel.export.families.base import Family
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.families.registry import FAMILIES, MULTIMODAL
from satchel.runtime.errors import UsageError

HELD_AGAINST = {
    "transformers": "5.23", "llama-cpp-python": "0.3.36", "onnxruntime-genai": "0.18", "onnxruntime": "1.31",
}  # fmt: skip
"""Package -> the version that the tests were last seen to pass with; they run with what is installed."""
FORMATS = ("coreml", "onnx", "executorch")


@dataclass(frozen=True)
class Entry:
    """One family.

    Attributes:
        name: as users know it.
        model_types: values of `model_type`.
        models: published ones, by their ids on the hub.
        always, options: see Family.
        reads: kinds of checkpoints.
        writes: formats.
        checked: what its logits were held against.
        sees: whether it takes pictures; its text model is then of one of the families `text`.
    """

    name: str
    model_types: tuple[str, ...]
    models: tuple[str, ...]
    always: tuple[str, ...]
    options: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    checked: str
    sees: bool = False
    text: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        found = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(self).items()}
        return found if self.sees else {k: v for k, v in found.items() if k not in ("sees", "text")}


def entries() -> list[Entry]:
    """All families, by name; those that see after the others."""
    texts = {family.name: family for family in FAMILIES.values()}
    return [
        *(_text(texts[name]) for name in sorted(texts)),
        *(_seeing(MULTIMODAL[kind]) for kind in sorted(MULTIMODAL)),
    ]


def find(name: str) -> Entry:
    """A family by its name, a model_type, or a published model's id or the last part of one.

    Raises:
        UsageError: there is none; it lists the families.
    """
    known, wanted = entries(), name.lower()
    for names in (lambda e: (e.name, *e.model_types), lambda e: _ids(e.models)):
        for entry in known:
            if wanted in (n.lower() for n in names(entry)):
                return entry
    raise UsageError(
        "no family or model of this name is known",
        got=name,
        wanted=f"one of {', '.join(entry.name for entry in known)}, or the id of a model that `satchel models` lists",
        hint="a model of a known architecture need not be listed: `satchel plan FOLDER` says whether it is supported",
    )


def _ids(models: Iterable[str]) -> list[str]:
    return [part for model in models for part in (model, model.rpartition("/")[2])]


def _text(family: Family) -> Entry:
    against = family.checked or "transformers"
    if family.gguf and "llama.cpp" not in against:
        against += ", its GGUF files against llama.cpp"
    own = f"GGUF file (as {family.gguf_as})" if family.gguf_as else "GGUF file"
    reads = ("Hugging Face folder", *([own] if family.gguf or family.gguf_as else []))
    return Entry(
        family.name, family.model_types, family.published, family.always, family.options, reads, FORMATS, against
    )


def _seeing(family: MultimodalFamily) -> Entry:
    against = "models put together from transformers'" if family.stand else "transformers"
    kind = family.model_type
    return Entry(
        kind, (kind,), (), (), (), ("Hugging Face folder",), FORMATS, against, sees=True, text=family.text_types
    )
