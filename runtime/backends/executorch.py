"""Runs model.pte with ExecuTorch's own runtime: one method for any number of tokens, the cache inside the program."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TextIO
from weakref import WeakSet

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError, UsageError
from satchel.runtime.manifest import ModelEntry
from satchel.runtime.pte import open_pte, unpack_coreml
from satchel.runtime.quiet import quiet_imports


class Program(Protocol):
    """What carries out one call."""

    def __call__(self, given: np.ndarray, position: int) -> np.ndarray:
        """Puts ids [1, sequence], or rows [1, sequence, hidden], into the cache at `position`.

        Returns:
            float32 [vocab], after the last.
        """
        ...


class Methods:
    """Methods of a file in ExecuTorch's runtime, whatever they take.

    Args:
        path: of the .pte file.
        names: which methods.
        threads: as ExecutorchBackend has it.

    Attributes:
        alive: all that have not been collected; they hold pointers to the process's thread pool.
    """

    alive: ClassVar[WeakSet[Methods]] = WeakSet()

    def __init__(self, path: Path, names: Sequence[str], threads: int | None) -> None:
        with native_log() as log:
            self._torch, runtime = _runtime()
            _set_threads(threads)
            Methods.alive.add(self)
            try:
                self._program = runtime.load_program(path)
                self._methods = {name: self._program.load_method(name) for name in names}
            except Exception as error:  # the binding raises RuntimeError, and KeyError for a method
                raise FormatError(
                    "ExecuTorch cannot load the model",
                    got=_cause(error, log),
                    wanted=f"a whole {path.name}",
                    hint="export the bundle again, or fetch it again",
                ) from error

    def outputs(self, method: str, *values: np.ndarray) -> list[np.ndarray]:
        """All that a method gives, in copies: the next call fills the same memory."""
        try:
            found = self._methods[method].execute([self._torch.from_numpy(value) for value in values])
        except Exception as error:
            raise FormatError("ExecuTorch failed to run the model", got=str(error)) from error
        return [np.array(value.numpy()) for value in found]


class Native(Methods):
    """Methods in ExecuTorch's runtime.

    Args:
        folder: of the bundle.
        entry: how the model is called.
        threads: as ExecutorchBackend has it.
        methods: which; the first is the decoder's. By default it alone.
    """

    def __init__(
        self, folder: Path, entry: ModelEntry, threads: int | None, methods: Sequence[str] | None = None
    ) -> None:
        names = methods or [entry.options.get("method", "forward")]
        super().__init__(folder / entry.path, names, threads)
        self._decoder = names[0]

    def __call__(self, given: np.ndarray, position: int) -> np.ndarray:
        """One execution, whatever the number of ids."""
        return self.run(self._decoder, given, np.array([position], np.int64)).reshape(-1)

    def run(self, method: str, *values: np.ndarray) -> np.ndarray:
        """What a method gives, float32."""
        (found,) = self.outputs(method, *values)
        return found.astype(np.float32, copy=False)


class Unpacked:
    """The Core ML package of a program for Apple's delegate, run by our interpreter where there is no Core ML."""

    def __init__(self, folder: Path, entry: ModelEntry, precision: str) -> None:
        from satchel.runtime.backends.coreml import CoremlBackend

        self._folder = tempfile.TemporaryDirectory()  # as long as this object: weights are read when they are needed
        with open_pte(folder / entry.path) as pte:
            plan = pte.method(entry.options.get("method", "forward"))
            package = unpack_coreml(pte.payload(plan.delegates[0]), Path(self._folder.name))
        inside = replace(entry, format="coreml", path=package.name, options=entry.options["package"])
        self._backend = CoremlBackend(Path(self._folder.name), inside, precision=precision, engine="interpreter")

    def __call__(self, given: np.ndarray, position: int) -> np.ndarray:
        """One id after the other."""
        self._backend.position = position
        for token in given[0]:
            logits = self._backend.step(int(token))
        return logits


class ExecutorchBackend:
    """A Backend (base.py) over `executorch.runtime`.

    Args:
        folder: of the bundle.
        entry: how the model is called.
        threads: of XNNPACK's pool, which the whole process shares; ExecuTorch's choice if None. Another number than
            the process has is refused while a program is loaded.
        precision: of the interpreter, which stands in for Core ML off the Mac: "fp32" or "fp16".

    Raises:
        MissingPackageError: without executorch.
        FormatError: when the file cannot be read, or needs a delegate that this machine does not have.
    """

    def __init__(self, folder: Path, entry: ModelEntry, threads: int | None = None, precision: str = "fp32") -> None:
        self.position = 0
        self.context_length = entry.context_length
        self._longest = int(entry.options.get("max_sequence", entry.context_length))
        self._vocabulary = _vocabulary(entry)
        self._call = self._open(folder, entry, threads, precision)

    def _open(self, folder: Path, entry: ModelEntry, threads: int | None, precision: str) -> Program:
        return Unpacked(folder, entry, precision) if foreign(entry) else Native(folder, entry, threads)

    def reset(self) -> None:
        """Empties the cache: what lies beyond `position` is never read."""
        self.position = 0

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids, in as few calls as the program allows; returns the logits after the last, float32 [vocab]."""
        if len(ids) == 0:
            raise UsageError("no tokens to prefill", wanted="at least one")
        self._check(ids)
        for start in range(0, len(ids), self._longest):
            piece = ids[start : start + self._longest]
            logits = self._run(np.array([piece], np.int64))
            self.position += len(piece)
        return logits

    def _run(self, ids: np.ndarray) -> np.ndarray:
        return self._call(ids, self.position)

    def step(self, token: int) -> np.ndarray:
        """Appends one id; returns float32 [vocab]."""
        return self.prefill([token])

    def _check(self, ids: Sequence[int]) -> None:
        total = self.position + len(ids)
        if total > self.context_length:
            raise UsageError(
                "more tokens than the cache holds",
                got=total,
                wanted=f"at most {self.context_length}",
                hint="reset the session, shorten the prompt, or export with a larger --context",
            )
        if not 0 <= min(ids) <= max(ids) < self._vocabulary:  # ExecuTorch's kernel would end the process
            wanted = f"0 to {self._vocabulary - 1}"
            raise UsageError("a token id that the model does not have", got=list(ids), wanted=wanted)


def foreign(entry: ModelEntry) -> bool:
    """Whether what the file holds is Core ML's, and there is none here."""
    return entry.options.get("target") == "coreml" and sys.platform != "darwin"


def _runtime() -> tuple[Any, Any]:
    """torch, since ExecuTorch's Python binding takes no other tensors, and the runtime with the kernels we call."""
    try:
        with quiet_imports():
            import executorch.kernels.quantized  # noqa: F401  int8 embedding
            import torch
            from executorch.runtime import Runtime
    except ImportError as error:
        hint = "pip install 'satchel[export]'"
        raise MissingPackageError("executorch is not installed", got=str(error), hint=hint) from error
    torch.ops.load_library(_custom_ops())
    return torch, Runtime.get()


def _set_threads(threads: int | None) -> None:
    """Gives the process's pool another size, which frees the old pool: programs that are loaded would still use it."""
    import torch
    from executorch.extension.pybindings import portable_lib

    if threads is None or threads == portable_lib._threadpool_get_thread_count():
        return
    if threads < 1 or Methods.alive:
        got = f"{threads} threads, with {len(Methods.alive)} programs loaded"
        hint = "load the first program with the number of threads that all shall have"
        raise UsageError("ExecuTorch's thread pool is the process's own", got=got, hint=hint)
    # The new pool is carried out by torch's OpenMP. With OpenMP's own count left above the pool's, its idle threads
    # spin, and a token takes 50 times as long.
    torch.set_num_threads(threads)
    portable_lib._unsafe_reset_threadpool(threads)


def _custom_ops() -> Path:
    """The library with attention and cache. Its Python module would import torch's compiler, which takes seconds."""
    from importlib.util import find_spec

    spec = find_spec("executorch.extension.llm.custom_ops")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for library in sorted(Path(folder).glob("*custom_ops_aot_lib.*")):
            return library
    raise MissingPackageError(
        "this executorch has no attention for language models",
        got=folders,
        wanted="libcustom_ops_aot_lib",
        hint="pip install 'satchel[export]'",
    )


@contextmanager
def native_log() -> Iterator[TextIO]:
    """Takes what ExecuTorch's C++ says while it loads, to be shown where it explains an error.

    Some of it comes through Python's stderr and some through the process's own, so both are turned aside.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as log, redirect_stderr(log):
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            log.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _cause(error: Exception, log: TextIO) -> str:
    """The error, and the first thing that ExecuTorch complained of."""
    log.flush()
    log.seek(0)
    told = [line.split("] ", 1)[-1].strip() for line in log if line.startswith("[") and "cpuinfo" not in line]
    return "; ".join([str(error).splitlines()[0] if str(error) else type(error).__name__, *told[:1]])


def _vocabulary(entry: ModelEntry) -> int:
    for spec in entry.outputs:
        if spec.name == "logits" and isinstance(spec.shape[-1], int):
            return spec.shape[-1]
    raise FormatError("the model's signature has no logits", got=[spec.name for spec in entry.outputs])
