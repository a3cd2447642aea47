"""ExecuTorch: a .pte file for ARM CPUs (XNNPACK) or for Apple devices (the Core ML delegate).

The file has one method, `forward(tokens int64 [1, sequence], start_pos int64 [1]) -> logits float32 [1, 1, vocab]` of
the last token, any length up to the longest, and beside it the constants that ExecuTorch's LLM runner asks for.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.decoder import decoder
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.executorch_program import Method, constant_method
from satchel.export.formats.pte import write_pte
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch import ExecutorchOps, Tensor
from satchel.export.ops.executorch_tools import schema
from satchel.export.progress import Progress, silent
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec

FILE = "model.pte"


def write(
    folder: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress = silent
) -> ModelEntry:
    """Writes `model.pte` into `folder`, by plan["target"].

    The kernels follow from each matrix: palettes and int8 become int8 rows with a scale each, int4 blocks stay so, and
    floats are fp32. plan["linear"] says only whether int8 rows meet int8 activations (qd8_qc8w) or fp32 (f32_qc8w).

    Raises:
        PlanError: for a target that is not known.
        FormatError: for a weight scheme that the target has no kernel for.
    """
    writers = {"xnnpack": _write_xnnpack, "coreml": _write_coreml}
    if plan["target"] not in writers:
        raise PlanError("an ExecuTorch target that is not known", got=plan["target"], wanted=list(writers))
    return writers[plan["target"]](folder / FILE, weights, config, plan, info, progress)


def _write_xnnpack(
    path: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress
) -> ModelEntry:
    longest = plan.prefill_length or plan.context_length
    exact = any(choice.role == "linear" and choice.value == "f32_qc8w" for choice in plan.choices)
    ops = ExecutorchOps(config, weights, plan.context_length, longest, int8_activations=not exact)
    logits = ops.leave(decoder(ops, config))
    method = Method("forward", ops.calls, [ops.given, ops.start_pos], [logits])
    write_pte(path, method, runner_metadata(config, plan, longest), progress)
    return _entry(config, plan, longest, "sequence")


def _write_coreml(
    path: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress
) -> ModelEntry:
    from satchel.export.formats.executorch_coreml import CoremlDelegate, write_package  # and with it coremltools

    tokens, start_pos = Tensor((1, 1), "int64"), Tensor((1,), "int64")
    logits = Tensor((1, 1, config.vocab_size))
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        package = write_package(Path(temporary), weights, config, plan, info, progress)
        call = CoremlDelegate([tokens, start_pos, logits], Path(temporary), package.options["compute"])
        method = Method("forward", [call], [tokens, start_pos], [logits])
        write_pte(path, method, runner_metadata(config, plan, 1), progress)
    entry = _entry(config, plan, 1, 1)
    return replace(entry, prefill_length=1, options=entry.options | {"package": package.options})


def runner_metadata(config: DecoderConfig, plan: Plan, longest: int) -> list[schema.ExecutionPlan]:
    """Names as executorch/extension/llm/runner/constants.h has them; `longest` tokens go into one call."""
    values: dict[str, bool | int | list[int]] = {
        "get_max_seq_len": longest,
        "get_max_context_len": plan.context_length,
        "get_vocab_size": config.vocab_size,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": plan["target"] == "xnnpack",
        "enable_dynamic_shape": longest > 1,
        "get_n_layers": config.layers,
    }
    if config.bos_token_id is not None:
        values["get_bos_id"] = config.bos_token_id
    if config.eos_token_ids:
        values["get_eos_ids"] = list(config.eos_token_ids)
    return [constant_method(name, value) for name, value in values.items()]


def _entry(config: DecoderConfig, plan: Plan, longest: int, sequence: int | str) -> ModelEntry:
    return ModelEntry(
        format="executorch",
        path=FILE,
        context_length=plan.context_length,
        prefill_length=plan.prefill_length,
        inputs=(TensorSpec("tokens", (1, sequence), "int64"), TensorSpec("start_pos", (1,), "int64")),
        outputs=(TensorSpec("logits", (1, 1, config.vocab_size), "float32"),),
        options={"method": "forward", "target": plan["target"], "max_sequence": longest},
    )
