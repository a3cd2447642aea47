"""Checkpoints as lazy named tensors: safetensors, one file or shards, and GGUF."""

from __future__ import annotations

from pathlib import Path

from satchel.export.checkpoint.base import Checkpoint, CheckpointInfo
from satchel.export.checkpoint.gguf_file import GgufCheckpoint
from satchel.export.checkpoint.safetensors_files import SafetensorsCheckpoint, weight_files
from satchel.runtime.errors import CheckpointError

__all__ = ["Checkpoint", "CheckpointInfo", "open_checkpoint"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

CONVERT = (
    "a pickle can run code when it is loaded; on a machine where you trust it, load it with transformers and call "
    "model.save_pretrained(folder), which writes safetensors, then pass that folder"
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint without reading its weights.

    Args:
        path: a Hugging Face folder (config.json and safetensors) or a GGUF file.

    Raises:
        CheckpointError: it is missing, truncated, of another kind, or a pickle.
    """
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise CheckpointError(
            "there is no such checkpoint", got=path, wanted="a folder with safetensors, or a .gguf file"
        )
    if not weight_files(path):
        raise _nothing_to_read(path)
    return SafetensorsCheckpoint(path)


def _open_file(path: Path) -> Checkpoint:
    if path.suffix == ".gguf":
        return GgufCheckpoint(path)
    if path.suffix in PICKLES:
        raise CheckpointError("pickled weights are not read", got=path.name, wanted="safetensors or GGUF", hint=CONVERT)
    hint = "pass the folder that holds it and its config.json" if path.suffix == ".safetensors" else ""
    raise CheckpointError("this file is not a checkpoint", got=path.name, wanted="a folder or a .gguf file", hint=hint)


def _nothing_to_read(folder: Path) -> CheckpointError:
    names = sorted(p.name for p in folder.iterdir())
    pickles = [n for n in names if n.endswith(PICKLES)]
    ggufs = [n for n in names if n.endswith(".gguf")]
    if pickles:
        return CheckpointError(
            "the folder holds only pickled weights, which are not read", got=pickles, wanted="safetensors", hint=CONVERT
        )
    hint = f"pass the file itself, {folder / ggufs[0]}" if ggufs else "check the path, or finish the download"
    return CheckpointError("the folder holds no safetensors", got=names[:8], wanted="model.safetensors", hint=hint)
