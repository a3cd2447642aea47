"""LICENSE and README.md of a bundle: whose model it is, under which terms, and what was done to it."""

from __future__ import annotations

from collections import Counter

from satchel.runtime.manifest import Manifest, ModelEntry, ModelInfo, WrittenManifest
from satchel.runtime.module.manifest import ModuleManifest

_RUN = {
    "coreml": "Core ML, through `MLModel` (see the signature in manifest.json)",
    "onnx": "onnxruntime or onnxruntime-genai",
    "executorch": "ExecuTorch, through its LLM runner or `Module`",
}
_SCHEMES = {
    "int8": "8 bits, with a scale for each row",
    "fp16": "half precision",
    "fp32": "single precision, as in the checkpoint",
}


def license_text(model: ModelInfo) -> str:
    """What goes into LICENSE: the terms of the model's weights as far as the checkpoint gives them."""
    if model.license_text:
        return model.license_text if model.license_text.endswith("\n") else model.license_text + "\n"
    known = model.license not in ("", "unknown")
    terms = f'"{model.license}"' if known else "not stated"
    return (
        f"The terms of {model.model_id}: {terms}.\n\n"
        "The checkpoint did not include their text. Look them up at its source before you pass this bundle on.\n"
    )


def model_card(manifest: WrittenManifest) -> str:
    """What goes into README.md, in Markdown. Only facts of the manifest: the same manifest gives the same text."""
    model, plan = manifest.model, manifest.plan
    sections = [
        f"# {model.model_id} for {plan.device}",
        f"A {model.family} model of {model.parameters:,} parameters, as a Satchel bundle: {_runs(manifest)}."
        + _shared(manifest),
        _table("Origin", [*_origin(model), ("licence", f"{model.license} (text in LICENSE)")]),
        "## What was done\n\n" + _changes(manifest),
        _table("Choices", [(c.role, f"{c.value}: {c.reason} ({c.source})") for c in plan.choices]),
        _table("Made with", sorted(manifest.tools.items())),
        "## Use\n\n" + (_USE_MODULE if isinstance(manifest, ModuleManifest) else _USE),
    ]
    return "\n\n".join(sections) + "\n"


def _runs(manifest: WrittenManifest) -> str:
    """What runs it, and what it is for."""
    if isinstance(manifest, ModuleManifest):
        paths = ", ".join(f"`{part.path}`" for part in manifest.module.files.values())
        task = f" for {manifest.module.task.name}" if manifest.module.task else ""
        return f"{_RUN_MODULE[manifest.format]} runs {paths}{task}"
    assert isinstance(manifest, Manifest)
    entry = manifest.entry
    return f"{_RUN[entry.format]} runs {_files(entry)} with a context of {entry.context_length:,} tokens"


def _shared(manifest: WrittenManifest) -> str:
    return f" It is as well for {', '.join(manifest.also_for)}." if manifest.also_for else ""


_RUN_MODULE = {
    "coreml": "Core ML, through `MLModel` (see the signature in manifest.json),",
    "onnx": "onnxruntime",
    "executorch": "ExecuTorch, through its `Module`,",
}
_USE_MODULE = """`satchel.load("THIS_FOLDER")` calls it; `satchel validate THIS_FOLDER` compares the bundle with the
reference data in `golden/` and writes parity.json. manifest.json holds all that an app needs to call the model."""
_USE = """`satchel run THIS_FOLDER --prompt "..."` answers; `satchel validate THIS_FOLDER` compares the bundle with the
reference data in `golden/` and writes parity.json. manifest.json holds all that an app needs to call the model."""


def _files(entry: ModelEntry) -> str:
    """The model file, or the packages in the order in which they are called."""
    if not entry.chunks:
        return f"`{entry.path}`"
    return "one after the other " + ", ".join(f"`{chunk.path}`" for chunk in entry.chunks)


def _origin(model: ModelInfo) -> list[tuple[str, str]]:
    return [("model", model.model_id), ("author", model.author or "not stated"), ("read from", model.source)]


def _changes(manifest: WrittenManifest) -> str:
    counts = Counter(manifest.weights.tensors.values())
    lines = [f"- {n} matrices: {scheme}{_described(scheme)}" for scheme, n in sorted(counts.items())]
    if manifest.weights.selection is not None:
        lines.append(f"- bits by what rounding each linear was measured to cost: {manifest.weights.selection}")
    lines.append(f"- the program was rewritten for {manifest.plan.format}, to suit {manifest.plan.device}")
    kept = "- tokenizer and chat template are the checkpoint's; nothing was trained"
    lines.append(kept if isinstance(manifest, Manifest) else "- nothing was trained")
    return "\n".join(["The weights were changed in precision only:", "", *lines])


def _described(scheme: str) -> str:
    if scheme.startswith("int") and "-block" in scheme:
        bits, block = scheme.removeprefix("int").removesuffix("-min").split("-block")
        second = "minimum" if scheme.endswith("-min") else "zero point"
        return f" ({bits} bits, a scale and a {second} for each {block} weights of a row)"
    if scheme.startswith("palette"):
        width = int(scheme.removeprefix("palette"))
        return f" ({width}-bit palette: each weight is one of {2**width} values, times a scale for its row)"
    return f" ({_SCHEMES[scheme]})" if scheme in _SCHEMES else ""


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    body = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows)
    return f"## {title}\n\n| | |\n|---|---|\n{body}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
