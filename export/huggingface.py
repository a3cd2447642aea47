"""transformers, imported lean and kept quiet.

Importing it whole pulls in torchao and scipy, of which nothing here makes use: that costs a second, memory, and lines
on stderr about libraries that cannot be loaded. Reading a GGUF file, it builds the table of names anew for each module
and parses the header twice through memmap views: 10 s of CPU for SmolLM2, 3 s with what `_lean_gguf` does.
"""

from __future__ import annotations

import copy
import functools
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import CheckpointError, MissingPackageError

UNUSED = ("torchao", "scipy")


@contextmanager
def quiet() -> Iterator[Any]:
    """transformers, which says nothing on stderr as long as this is open.

    Raises:
        MissingPackageError: it is not installed.
    """
    transformers = _import()
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_model(path: Path) -> Any:
    """A causal language model in fp32, ready to run, loaded by transformers alone.

    Args:
        path: a Hugging Face folder, or a GGUF file.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    with quiet() as transformers, _lean_gguf():
        import torch

        where = {"gguf_file": path.name} if path.is_file() else {"use_safetensors": True}
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent if path.is_file() else path),
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                **where,
            )
        except Exception as error:
            raise CheckpointError(
                "transformers, which runs the reference, cannot load the checkpoint", got=first_line(error)
            ) from error
    return model.eval().requires_grad_(False)


def empty_model(
    path: Path,
    given: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any]] = (),
    adapt: Callable[[Any], None] = lambda model: None,
) -> Any:
    """The program of a causal language model, without weights: its parameters are on torch's meta device.

    Args:
        path: a Hugging Face folder, or a GGUF file.
        given: the configuration, for a checkpoint that transformers does not read.
        layers: for each layer what it has otherwise, where they differ.
        adapt: exchanges parts of the model.

    Raises:
        CheckpointError: transformers does not know the model.
    """
    with quiet() as transformers, _lean_gguf():
        import torch
        from accelerate import init_empty_weights

        where = {"gguf_file": path.name} if path.is_file() else {}
        folder = str(path.parent if path.is_file() else path)
        try:
            config = (
                transformers.AutoConfig.for_model(**given)
                if given
                else transformers.AutoConfig.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, **where
                )
            )
            with init_empty_weights(include_buffers=False):  # buffers are computed, not read
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
                _resize(model, layers)
                adapt(model)
                return model
        except Exception as error:
            raise CheckpointError(
                "transformers, which runs the reference, does not know the model", got=first_line(error)
            ) from error


def load_whole_model(path: Path) -> Any:
    """A model that sees, in fp32.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    with quiet() as transformers:
        import torch

        try:
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                str(path), dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:
            raise CheckpointError(
                "transformers, which runs the reference, cannot load the checkpoint", got=first_line(error)
            ) from error
    return model.eval().requires_grad_(False)


def empty_whole_model(path: Path, build: Callable[[], Any] | None = None) -> Any:
    """The same without weights: its parameters are on torch's meta device.

    Args:
        path: a Hugging Face folder.
        build: makes it, where transformers does not have it.

    Raises:
        CheckpointError: transformers does not know the model.
    """
    with quiet() as transformers:
        import torch
        from accelerate import init_empty_weights

        try:
            with init_empty_weights(include_buffers=False):  # buffers are computed, not read
                if build is not None:
                    return build()
                config = transformers.AutoConfig.from_pretrained(
                    str(path), local_files_only=True, trust_remote_code=False
                )
                return transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        except Exception as error:
            raise CheckpointError(
                "transformers, which runs the reference, does not know the model", got=first_line(error)
            ) from error


def _resize(model: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    """Replaces each layer by one of its kind with some options of its own."""
    for i, options in enumerate(layers):
        config = copy.deepcopy(model.config)
        for key, value in options.items():
            setattr(config, key, value)
        model.model.layers[i] = type(model.model.layers[i])(config, i)


def filled_model(model: Any, weights: Mapping[str, np.ndarray]) -> Any:
    """As `load_model`, of a checkpoint that transformers does not read: its program, with weights that we have read.

    Args:
        model: as empty_model gives it.
        weights: every parameter by transformers' name, float32.
    """
    import torch

    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)


def first_line(error: Exception) -> str:
    """An error of another package, in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _import() -> Any:
    if "transformers" not in sys.modules:
        try:
            _import_without_unused()
        except ImportError as error:
            raise MissingPackageError(
                "the export needs transformers", got=error, hint="pip install 'satchel[export]'"
            ) from None
    import transformers

    return transformers


def _import_without_unused() -> None:
    """Lets transformers find that what is unused is not installed; it keeps the answers, and asks nobody else."""
    from transformers.utils import import_utils

    real = import_utils._is_package_available

    def pretended(name: str, *args: Any, **options: Any) -> Any:
        return (False, "N/A") if name in UNUSED else real(name, *args, **options)

    import_utils._is_package_available = pretended
    try:
        for name in UNUSED:
            available = getattr(import_utils, f"is_{name}_available")
            available.cache_clear()
            available()
    finally:
        import_utils._is_package_available = real


@contextmanager
def _lean_gguf() -> Iterator[None]:
    """While it is open, gguf-py reads a file once, through plain arrays, and builds a table of names once."""
    import gguf

    real_reader, real_map = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader = functools.lru_cache(1)(_plain_reader(real_reader))
    gguf.get_tensor_name_map = functools.lru_cache(1)(real_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = real_reader, real_map


def _plain_reader(reader: type) -> type:
    """The reader, but slicing a plain array: numpy makes a memmap's slices ten times slower and larger."""

    class PlainReader(reader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            import numpy as np

            self._plain = mapped.view(np.ndarray)

    return PlainReader
