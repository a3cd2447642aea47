"""What a plan is: every choice that an exporter follows, with its reason. planner.py makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from satchel.devices.errors import PlanError


@dataclass(frozen=True)
class ModelShape:
    """What a plan needs to know of a model: counts only."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    parameters: int
    max_position: int
    tied_embeddings: bool


@dataclass(frozen=True)
class Choice:
    """One decision of a plan.

    Attributes:
        role: what is decided, such as "linear" or "cache".
        value: what was chosen.
        reason: why, in a sentence.
        source: the rule or source that the reason rests on, such as "neural-engine rule 7".
        rejected: the alternatives that were turned down.
    """

    role: str
    value: str
    reason: str
    source: str
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to build for a device.

    Attributes:
        device: name of the profile.
        format: "coreml", "onnx" or "executorch".
        context_length: tokens that the cache holds.
        prefill_length: tokens of one prefill call; 0 where any length will do.
        choices: one for each role; `plan["linear"]` gives a value.

    Roles and their values (a format reads only its own):

        weights     palette | int4 | int8 | fp16 | fp32 | source (a GGUF file's own codes)
        kv_weights  int8 | as_linear | by_loss  k_proj and v_proj kept at 8 bits beside a palette, or chosen as others
        lut_groups  tensor | rows16             one LUT a tensor, or one for each 16 rows
        scale_dtype float16 | bfloat16          of affine block scales
        target      Core ML: iOS16 | iOS17 | iOS18; ONNX: opset21; ExecuTorch: xnnpack | coreml
        layout      Core ML: channels_first | plain
        accuracy_level  ONNX: 1 | 4             MatMulNBits with fp32 or int8 activations
        cache_write Core ML: slice_update | mask
        cache       Core ML: state | io; ONNX: shared_buffer; ExecuTorch: custom_sdpa
        lm_head     Core ML: split<N> | whole; ONNX and ExecuTorch: last_token
        tied_head   Core ML: shared | duplicated; others: shared
        compute     Core ML: cpuAndNeuralEngine | cpuAndGPU | cpuOnly | all; others: cpu
        linear      conv1x1 | linear | matmul_nbits | matmul | lut | qd8_qc8w | qd8_qb4w ...
        attention   per_head | fused_sdpa | group_query_attention | custom_sdpa
    """

    device: str
    format: str
    context_length: int
    prefill_length: int
    choices: tuple[Choice, ...]

    def __getitem__(self, role: str) -> str:
        for choice in self.choices:
            if choice.role == role:
                return choice.value
        raise PlanError(
            f"the plan for {self.device} says nothing about '{role}'", wanted=[c.role for c in self.choices]
        )

    def get(self, role: str, default: str) -> str:
        """The value of a role, or `default` where the plan does not name it."""
        return next((c.value for c in self.choices if c.role == role), default)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, choices in order."""
        return {
            "device": self.device,
            "format": self.format,
            "context_length": self.context_length,
            "prefill_length": self.prefill_length,
            "choices": [
                {"role": c.role, "value": c.value, "reason": c.reason, "source": c.source, "rejected": list(c.rejected)}
                for c in self.choices
            ],
        }
