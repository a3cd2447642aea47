"""Runs model.onnx with onnxruntime: one session for any number of tokens, the cache bound once and written in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError, UsageError
from satchel.runtime.manifest import ModelEntry
from satchel.runtime.memory import return_freed_memory

FULL_PRECISION = 1
"""MatMulNBits' accuracy_level for fp32 activations; 4, which the files have, is int8."""


class OnnxBackend:
    """A Backend (base.py) over onnxruntime's CPU provider.

    Args:
        folder: of the bundle.
        entry: how the model is called.
        threads: intra-op threads; onnxruntime's choice (one a core) if None.
        exact: keep activations in fp32 where the kernels would round them to int8. Slow; it shows
            whether the graph and its weights are right, apart from what the rounding costs. Needs the onnx package.
        kleidiai: let ARM CPUs use Arm's KleidiAI kernels, as onnxruntime does by itself.
        packed: have weights rearranged for the kernels, which takes their size in memory once more. Without, they stay
            in the mapped file, and are expanded in fp32 whenever they are used: very slow, but any size loads.

    Raises:
        MissingPackageError: without onnxruntime.
        FormatError: when onnxruntime is too old for the file, or cannot read it.
    """

    def __init__(
        self,
        folder: Path,
        entry: ModelEntry,
        threads: int | None = None,
        exact: bool = False,
        kleidiai: bool = True,
        packed: bool = True,
    ) -> None:
        ort = _onnxruntime()
        _check_version(ort.__version__, entry)
        self.position = 0
        self.context_length = entry.context_length
        self._session = self.open_session(folder / entry.path, threads, exact, kleidiai, packed)
        return_freed_memory()
        self._mask = np.ones((1, entry.context_length), np.int64)
        self._token = np.zeros((1, 1), np.int64)
        self._logits = np.zeros((1, 1, _vocabulary(entry)), np.float32)
        self._binding = self._session.io_binding()
        self._bind_fixed(entry)

    @staticmethod
    def open_session(path: Path, threads: int | None, exact: bool, kleidiai: bool = True, packed: bool = True) -> Any:
        """A session over one of the bundle's graphs."""
        return _session(_onnxruntime(), path, threads, exact, kleidiai, packed)

    def _bind_fixed(self, entry: ModelEntry) -> None:
        """The cache (past and present are one buffer) and the logits, bound once for the life of the session."""
        self._cache = []
        present = [spec.name for spec in entry.outputs if spec.name.startswith("present.")]
        past = [spec for spec in entry.inputs if spec.name.startswith("past_key_values.")]
        for spec, output in zip(past, present, strict=True):
            shape = (1, int(spec.shape[1]), entry.context_length, int(spec.shape[3]))
            buffer = np.zeros(shape, np.float32)  # from untouched pages: memory is used as far as the cache is filled
            self._cache.append(buffer)
            self._bind(self._binding.bind_input, spec.name, buffer)
            self._bind(self._binding.bind_output, output, buffer)
        self._bind(self._binding.bind_output, "logits", self._logits)

    @staticmethod
    def _bind(bind: Any, name: str, array: np.ndarray) -> None:
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def reset(self) -> None:
        """Empties the cache: what lies beyond `position` is never read."""
        self.position = 0

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids; returns the logits after the last, float32 [vocab]."""
        if len(ids) == 0:
            raise UsageError("no tokens to prefill", wanted="at least one")
        return self._run(np.asarray(ids, np.int64)[None])

    def step(self, token: int) -> np.ndarray:
        """Appends one id; returns float32 [vocab]."""
        self._token[0, 0] = token
        return self._run(self._token)

    def _run(self, ids: np.ndarray) -> np.ndarray:
        return self._call("input_ids", ids, self._check(ids))

    def _check(self, ids: np.ndarray) -> int:
        """How many ids the cache holds after these."""
        total = self.position + ids.shape[1]
        if total > self.context_length:
            raise UsageError(
                "more tokens than the cache holds",
                got=total,
                wanted=f"at most {self.context_length}",
                hint="reset the session, shorten the prompt, or export with a larger --context",
            )
        if ids.min() < 0 or ids.max() >= self._logits.shape[2]:  # the quantized embedding would read beyond its end
            raise UsageError(
                "a token that the model does not have",
                got=[ids.min(), ids.max()],
                wanted=f"0 to {self._logits.shape[2] - 1}",
            )
        return total

    def _call(self, name: str, given: np.ndarray, total: int) -> np.ndarray:
        """Appends what is given as the input `name`; returns the logits after the last."""
        self._bind(self._binding.bind_input, name, given)
        self._bind(self._binding.bind_input, "attention_mask", self._mask[:, :total])
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise FormatError("onnxruntime failed to run the model", got=_first_line(error)) from error
        self.position = total
        return np.array(self._logits[0, 0])


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("onnxruntime is not installed", hint="pip install 'satchel[onnx]'") from error
    return onnxruntime


def _session(ort: Any, path: Path, threads: int | None, exact: bool, kleidiai: bool, packed: bool) -> Any:
    options = ort.SessionOptions()
    if not packed:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # else palettes are folded
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed as well
    if threads is not None:
        options.intra_op_num_threads = threads
    # Since 1.27 a constant above 1 GiB is not folded: a large fp16 head would be widened again at every token.
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", "0")
    if not kleidiai:
        options.add_session_config_entry("mlas.disable_kleidiai", "1")
    try:
        if not exact:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        return ort.InferenceSession(_in_full_precision(path), options, providers=["CPUExecutionProvider"])
    except MissingPackageError:
        raise
    except Exception as error:  # onnxruntime has no common base for its exceptions
        hint = "export the bundle again, or fetch it again"
        raise FormatError("onnxruntime cannot read the model", got=_first_line(error), hint=hint) from error


def _in_full_precision(path: Path) -> bytes:
    """The model with MatMulNBits told to multiply in fp32; its external data stays where it is."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("the onnx package is not installed", hint="pip install 'satchel[onnx]'") from error
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FULL_PRECISION
    return bytes(model.SerializeToString())


def _check_version(installed: str, entry: ModelEntry) -> None:
    wanted = str(entry.options.get("minimum_onnxruntime", "0"))
    if _numbers(installed) < _numbers(wanted):
        reason = entry.options.get("minimum_onnxruntime_reason", "")
        raise FormatError(
            "onnxruntime is too old for this model",
            got=installed,
            wanted=f"{wanted} or newer ({reason})",
            hint="pip install --upgrade onnxruntime",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _vocabulary(entry: ModelEntry) -> int:
    for spec in entry.outputs:
        if spec.name == "logits" and isinstance(spec.shape[-1], int):
            return spec.shape[-1]
    raise FormatError("the model's signature has no logits", got=[spec.name for spec in entry.outputs])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
