"""ExecuTorch: a .pte file for ARM CPUs (XNNPACK) or for Apple devices (the Core ML delegate).

The file has one method, `forward(tokens int64 [1, sequence], start_pos int64 [1]) -> logits float32 [1, 1, vocab]` of
the last token, any length up to the longest, and beside it the constants that ExecuTorch's LLM runner asks for. Of a
model that sees the decoder is one method of three (executorch_vision.py), and takes rows instead of tokens.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.decoder import block, decoder, head
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.executorch_program import Method, constant_method
from satchel.export.formats.pte import write_pte
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch import ExecutorchOps, Tensor, Value
from satchel.export.ops.executorch_tools import schema
from satchel.export.progress import Progress, silent
from satchel.runtime.manifest import ModelEntry, ModelInfo, TensorSpec

FILE = "model.pte"
TARGETS = ("xnnpack", "coreml")


@dataclass(frozen=True)
class DecoderMethod:
    """The decoder as a method.

    Attributes:
        method: with what it calls.
        longest: tokens of one call.
        package: options of the Core ML program inside; None for XNNPACK.
    """

    method: Method
    longest: int
    package: dict[str, Any] | None = None


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
    check_target(plan)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = decoder_method("forward", Path(scratch), weights, config, plan, info, progress)
        write_pte(folder / FILE, [made.method], runner_metadata(config, plan, made.longest), progress)
    return entry_of(config, plan, made)


def check_target(plan: Plan) -> None:
    """Raises PlanError for a target that is not known."""
    if plan["target"] not in TARGETS:
        raise PlanError("an ExecuTorch target that is not known", got=plan["target"], wanted=list(TARGETS))


def decoder_method(
    name: str, scratch: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress,
    *, embedded: bool = False, rows: int = 1,
) -> DecoderMethod:  # fmt: skip
    """The decoder as a method.

    Args:
        name: of the method.
        scratch: an empty folder for what the file will hold, which must last until it is written.
        weights, config, plan, info, progress: as `write` has them.
        embedded: whether it takes rows of the embedding instead of ids.
        rows: that one call must take at least, of XNNPACK.
    """
    if plan["target"] == "coreml":
        return _by_coreml(name, scratch, weights, config, plan, info, progress, embedded)
    longest = max(plan.prefill_length or plan.context_length, rows)
    ops = ExecutorchOps(
        config, weights, plan.context_length, longest, int8_activations=int8_activations(plan), embedded=embedded
    )
    logits = ops.leave(_embedded(ops, config) if embedded else decoder(ops, config))
    return DecoderMethod(Method(name, ops.calls, [ops.given, ops.start_pos], [logits]), longest)


def int8_activations(plan: Plan) -> bool:
    """Whether XNNPACK's linears round what they are given to int8."""
    return all(choice.role != "linear" or choice.value != "f32_qc8w" for choice in plan.choices)


def _embedded(ops: ExecutorchOps, config: DecoderConfig) -> Value:
    x = Value(ops.given.dims, tensor=ops.given)
    for layer in range(config.layers):
        x = block(ops, x, layer)
    return head(ops, config, x)


def _by_coreml(
    name: str, scratch: Path, weights: Weights, config: DecoderConfig, plan: Plan, info: ModelInfo, progress: Progress,
    embedded: bool,
) -> DecoderMethod:  # fmt: skip
    from satchel.export.formats.executorch_coreml import CoremlDelegate, write_package  # and with it coremltools

    given = Tensor((1, 1, config.hidden_size)) if embedded else Tensor((1, 1), "int64")
    start_pos, logits = Tensor((1,), "int64"), Tensor((1, 1, config.vocab_size))
    package = write_package(scratch, weights, config, plan, info, progress, embedded=embedded)
    call = CoremlDelegate([given, start_pos, logits], scratch, package.options["compute"])
    return DecoderMethod(Method(name, [call], [given, start_pos], [logits]), 1, package.options)


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


def entry_of(config: DecoderConfig, plan: Plan, made: DecoderMethod) -> ModelEntry:
    """How the decoder is called."""
    sequence: int | str = 1 if made.package else "sequence"
    given = TensorSpec("tokens", (1, sequence), "int64")
    if len(made.method.inputs[0].dims) == 3:
        given = TensorSpec("embeddings", (1, sequence, config.hidden_size), "float32")
    entry = ModelEntry(
        format="executorch",
        path=FILE,
        context_length=plan.context_length,
        prefill_length=plan.prefill_length,
        inputs=(given, TensorSpec("start_pos", (1,), "int64")),
        outputs=(TensorSpec("logits", (1, 1, config.vocab_size), "float32"),),
        options={"method": made.method.plan.name, "target": plan["target"], "max_sequence": made.longest},
    )
    if made.package is None:
        return entry
    return replace(entry, prefill_length=1, options=entry.options | {"package": made.package})
