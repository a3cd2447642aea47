"""What a plan is: every choice that an exporter follows, with its reason. planner.py makes one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from satchel.devices.errors import PlanError


@dataclass(frozen=True)
class TowerShape:
    """The part of a model that sees.

    Attributes:
        layers, hidden_size, heads, intermediate_size: of the encoder.
        positions: rows that its layers see, of one tile of a picture.
        rows: of features that a tile becomes in the prompt.
        tiles: of one picture, at the most.
        linears: weights of its linears and the projector's.
        floats: other numbers, which are kept as halves.
    """

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    positions: int
    rows: int
    tiles: int
    linears: int
    floats: int

    @property
    def parameters(self) -> int:
        """Count."""
        return self.linears + self.floats


@dataclass(frozen=True)
class ModelShape:
    """What a plan needs to know of a model: counts, and the names of its activation and its norms.

    Attributes:
        layers, hidden_size, heads, kv_heads, head_dim, intermediate_size, vocab_size: of the decoder.
        parameters: count, a tied matrix counted once.
        max_position: tokens that it was trained for.
        tied_embeddings: whether the head is the embedding.
        activation: "silu", "gelu_tanh" or "gegelu".
        norm: "rms" or "layer".
        pre_norm: whether attention and MLP have norms before them.
        softcapped: whether the scores of attention are capped.
        sparse_beyond: tokens that every head sees all of; beyond, heads see blocks, each its own. 0 for all tokens.
        rotated: channels of a head that rotary embedding turns, the fewest of any layer that has it; 0 for all.
        cached_heads: key and value heads of all layers together; 0 where each layer has `kv_heads`.
        row_lengths: lengths of the rows of the linears; () where they follow from the other counts.
        tower: of a model that sees; all else is then of its text model.
    """

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
    activation: str = "silu"
    norm: str = "rms"
    pre_norm: bool = True
    softcapped: bool = False
    sparse_beyond: int = 0
    rotated: int = 0
    cached_heads: int = 0
    row_lengths: tuple[int, ...] = ()
    tower: TowerShape | None = None

    @property
    def all_parameters(self) -> int:
        """Count, the part that sees included."""
        return self.parameters + (self.tower.parameters if self.tower else 0)

    @property
    def key_channels(self) -> int:
        """Channels of the keys of all layers together, for each token in the cache; values have as many."""
        return (self.cached_heads or self.layers * self.kv_heads) * self.head_dim


@dataclass(frozen=True)
class Rejection:
    """An alternative that was turned down.

    Attributes:
        value: that the role could have had, or that some other device or format would get.
        reason: why it has not.
        source: ids of the rules that the reason rests on, as in Choice.
    """

    value: str
    reason: str
    source: str


@dataclass(frozen=True)
class Choice:
    """One decision of a plan.

    Attributes:
        role: what is decided, such as "linear" or "cache".
        value: what was chosen.
        reason: why, in a sentence.
        source: ids of the rules that the reason rests on, the weightiest first: "NE07" or "NE23, NE02". In bundles from
            before there were ids, where it comes from in words.
        rejected: the alternatives that were turned down; in those bundles their values alone.
    """

    role: str
    value: str
    reason: str
    source: str
    rejected: tuple[Rejection | str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to build for a device.

    Attributes:
        device: name of the profile.
        format: "coreml", "onnx" or "executorch".
        context_length: tokens that the cache holds.
        prefill_length: tokens of one prefill call; 0 where any length will do.
        choices: one for each role; `plan["linear"]` gives a value.

    Roles and their values (a format reads only its own; see the rules that each choice names):

        format      as above
        weights     palette | int4 | int8 | fp16 | fp32 | source (a GGUF file's own codes)
        kv_weights  int8 | as_linear | by_loss  k_proj and v_proj kept at 8 bits beside a palette, or chosen as others
        lut_groups  tensor | rows16             one LUT a tensor, or one for each 16 rows
        scale_dtype float16 | bfloat16          of affine block scales
        target      Core ML: iOS16 | iOS17 | iOS18; ONNX: opset21; ExecuTorch: xnnpack | coreml
        opset       Core ML: CoreML6 | CoreML7 | CoreML8, of the program's functions
        minimum_os  Core ML: the oldest systems that read the package, such as "iOS 18, macOS 15"
        context_length, prefill_length  as below; "any" for a prefill length of 0
        linear      conv1x1 | linear | matmul_nbits | matmul | qd8_qc8w | f32_qc8w | qd8_qb4w | fp32
        layout      Core ML: channels_first | plain; goes with linear
        compute     Core ML: cpuAndNeuralEngine | cpuAndGPU | cpuOnly | all; others: cpu
        chunks      Core ML: packages that the layers are spread over, "1", "2" ...
        attention   per_head | batched | fused_sdpa | group_query_attention | custom_sdpa | capped_products
        accuracy_level  ONNX: 1 | 4             MatMulNBits with fp32 or int8 activations
        activation_dtype  float16 | float32 | int8, that linears multiply by their weights
        embedding   gather | gather_block_quantized | embedding_byte
        norm        divided_by_peak | with_residual_sum | by_itself | mean_by_linear
        rotary      tables | in_attention
        activation  half_tanh | gelu_tanh | quick_gelu | gelu | times_sigmoid
        cache       Core ML: state | io; ONNX: shared_buffer; ExecuTorch: custom_sdpa
        cache_dtype float16 | float32
        cache_write Core ML: slice_update | mask | host
        lm_head     Core ML: split<N> | whole; ONNX and ExecuTorch: last_token
        tied_head   shared | duplicated; absent where the head is a matrix of its own

    Where ExecuTorch's target is coreml, the roles of Core ML say what its delegate is given.
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
                {
                    "role": c.role, "value": c.value, "reason": c.reason, "source": c.source,
                    "rejected": [r if isinstance(r, str) else asdict(r) for r in c.rejected],
                }
                for c in self.choices
            ],
        }  # fmt: skip


def alike(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Plans that differ in nothing but the device and the reasons side by side, in the order of their first."""
    found: dict[tuple[object, ...], list[Plan]] = {}
    for plan in plans:
        values = tuple((choice.role, choice.value) for choice in plan.choices)
        found.setdefault((plan.format, plan.context_length, plan.prefill_length, values), []).append(plan)
    return list(found.values())
