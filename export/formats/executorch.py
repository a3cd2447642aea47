"""ExecuTorch: a .pte file for ARM CPUs (XNNPACK) or for Apple devices (the Core ML delegate).

The file has one method, `forward(tokens int64 [1, sequence], start_pos int64 [1]) -> logits float32 [1, 1, vocab]` of
the last token, any length up to the longest, and beside it the constants that ExecuTorch's LLM runner asks for.
"""

from __future__ import annotations

from pathlib import Path

from executorch.exir import schema

from satchel.devices.plan import Plan
from satchel.export.decoder import decoder
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.executorch_program import Method, constant_method
from satchel.export.formats.pte import write_pte
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch import ExecutorchOps
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec

FILE = "model.pte"


def write(
    folder: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress = silent
) -> ModelEntry:
    """Writes `model.pte` into `folder`, by plan["target"].

    Raises FormatError for a weight scheme that the target has no kernel for.
    """
    if plan["target"] == "xnnpack":
        _write_xnnpack(folder / FILE, weights, config, plan, progress)
    else:
        raise FormatError("an ExecuTorch target that is not known", got=plan["target"], wanted="xnnpack or coreml")
    return _entry(config, plan)


def longest_input(plan: Plan) -> int:
    """Tokens that one call takes."""
    return plan.prefill_length or plan.context_length


def _write_xnnpack(path: Path, weights: Weights, config: DecoderConfig, plan: Plan, progress: Progress) -> None:
    ops = ExecutorchOps(config, weights, plan.context_length, longest_input(plan))
    logits = ops.leave(decoder(ops, config))
    method = Method("forward", ops.calls, [ops.tokens, ops.start_pos], [logits])
    write_pte(path, method, runner_metadata(config, plan), progress)


def runner_metadata(config: DecoderConfig, plan: Plan) -> list[schema.ExecutionPlan]:
    """Names as executorch/extension/llm/runner/constants.h has them."""
    values: dict[str, bool | int | list[int]] = {
        "get_max_seq_len": longest_input(plan),
        "get_max_context_len": plan.context_length,
        "get_vocab_size": config.vocab_size,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        "get_n_layers": config.layers,
    }
    if config.bos_token_id is not None:
        values["get_bos_id"] = config.bos_token_id
    if config.eos_token_ids:
        values["get_eos_ids"] = list(config.eos_token_ids)
    return [constant_method(name, value) for name, value in values.items()]


def _entry(config: DecoderConfig, plan: Plan) -> ModelEntry:
    return ModelEntry(
        format="executorch",
        path=FILE,
        context_length=plan.context_length,
        prefill_length=plan.prefill_length,
        inputs=(TensorSpec("tokens", (1, "sequence"), "int64"), TensorSpec("start_pos", (1,), "int64")),
        outputs=(TensorSpec("logits", (1, 1, config.vocab_size), "float32"),),
        options={"method": "forward", "target": plan["target"], "max_sequence": longest_input(plan)},
    )
