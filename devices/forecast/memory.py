"""How much memory an app needs for a plan, line by line, each with where its figure comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.tower import picture_bytes, tower_file_bytes, tower_held_bytes
from satchel.devices.forecast.weights import (
    by_coreml,
    cache_width,
    count,
    expanded,
    file_bytes,
    kernel_bits,
    runtime_of,
)
from satchel.devices.plan import ModelShape, Plan, TowerShape
from satchel.devices.profile import DeviceProfile

HELD, LOADING, MAPPED, PERHAPS = "held", "loading", "mapped", "perhaps"
FOLDING = {1: 4, 2: 4, 3: 6, 4: 4, 6: 10, 8: 0}
"""Bytes a weight that onnxruntime keeps while it folds a palette of so many bits (docs/choices.md, folded LUT)."""
FOLDING_MIXED = 5.5
"""The same of the mixture that an export makes: three quarters at 4 bits, one at 6."""


@dataclass(frozen=True)
class Line:
    """One part of the sum.

    Attributes:
        name: what it is for.
        bytes: how much.
        when: "held" all the time; "loading" only while the model is loaded; "mapped" from a file, pages that the system
            may take back and that are not counted; "perhaps" where reports disagree, not counted.
        source: the formula, and where its figures come from.
    """

    name: str
    bytes: int
    when: str
    source: str


@dataclass(frozen=True)
class Memory:
    """The sum.

    Attributes:
        lines: its parts.
    """

    lines: tuple[Line, ...]

    def of(self, when: str) -> int:
        """Bytes of the lines of one kind."""
        return sum(line.bytes for line in self.lines if line.when == when)

    @property
    def loading(self) -> int:
        """Bytes while the model is loaded, before a token was asked for."""
        later = sum(line.bytes for line in self.lines if line.name in ("cache", "activations", "a picture"))
        return self.of(HELD) - later + self.of(LOADING)

    @property
    def needed(self) -> int:
        """Bytes at the most: while a conversation fills the context, or while the model is loaded."""
        return max(self.of(HELD), self.loading)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        lines = [
            {"name": line.name, "bytes": line.bytes, "when": line.when, "source": line.source} for line in self.lines
        ]
        return {"lines": lines, "held_bytes": self.of(HELD), "loading_bytes": self.loading, "needed_bytes": self.needed}


def memory_of(profile: DeviceProfile, plan: Plan, shape: ModelShape, *, bits: int | None = None) -> Memory:
    """What a plan needs on a device.

    Args:
        profile: whose system and engine count.
        plan: what is built.
        shape: the model.
        bits: of the linears, as --bits; None for the mixture that an export makes.
    """
    lines = [*_weights(profile, plan, shape, bits), _cache(plan, shape), _activations(plan, shape)]
    if shape.tower:
        lines[1:1] = _seeing(profile, plan, shape, shape.tower, bits)
    return Memory((*lines, runtime_line(plan), _tokenizer(shape), app_line(profile)))


def _weights(profile: DeviceProfile, plan: Plan, shape: ModelShape, bits: int | None) -> list[Line]:
    stored, runtime = file_bytes(plan, shape, bits), runtime_of(plan)
    if runtime == "onnx":
        return _onnx_weights(plan, shape, bits, stored)
    if runtime == "xnnpack":
        return _xnnpack_weights(plan, shape, bits, stored)
    stored -= tower_file_bytes(plan, shape, bits, runtime)
    if expanded(plan, profile.engine):
        counts = count(shape)
        why = "expanded to fp16 when the model is loaded (docs/neural-engine.md, targets and rule 14)"
        lines = [Line("weights", 2 * (counts.linears + counts.tables), HELD, why)]
    else:
        lines = [Line("weights", stored, HELD, "as they are in the file; counted in full, although they are mapped")]
    if plan.get("cache", "") == "state" and runtime == "neural-engine":
        why = "if prefill and decode share weights on disk only (coremltools #2351, unverified)"
        lines.append(Line("second function", stored, PERHAPS, why))
    return lines


def _seeing(
    profile: DeviceProfile, plan: Plan, shape: ModelShape, tower: TowerShape, bits: int | None
) -> list[Line]:  # fmt: skip
    """The part that sees: its weights, which stay, and what one tile of a picture takes."""
    runtime, wide = runtime_of(plan), expanded(plan, profile.engine)
    held = tower_held_bytes(plan, shape, bits, runtime, expanded=wide)
    copies = constant("onnx.copies").value if runtime == "onnx" else 1
    width = 2 if by_coreml(plan) and plan["weights"] != "fp32" else 4
    why = f"{tower.parameters:,} weights of the vision encoder" + (f", times {copies:g}" if copies > 1 else "")
    tile = picture_bytes(tower, width, fused=plan.format == "onnx")
    words = f"one of at most {tower.tiles} tiles: {tower.positions} rows x {width} bytes, by its widths and heads"
    return [Line("vision encoder", int(held * copies), HELD, why), Line("a picture", tile, HELD, words)]


def _onnx_weights(plan: Plan, shape: ModelShape, bits: int | None, stored: int) -> list[Line]:
    counts, (linear, head) = count(shape), kernel_bits(plan, shape, bits)
    copies = constant("onnx.copies").value
    held = int((counts.linears * linear + counts.tables * head) * copies) // 8
    why = (
        f"{linear:.1f} bits a weight in the linears, times {copies:g}: packed for the kernels beside what the file gave"
    )
    lines = [Line("weights", held, HELD, f"{why} (measured)"), Line("model file", stored, MAPPED, "read once")]
    if plan["weights"] == "palette":
        low = plan.get("kv_weights", "by_loss") != "by_loss"  # an export of effort low has 4 bits
        each = FOLDING.get(bits or 4, FOLDING_MIXED) if bits or low else FOLDING_MIXED
        extra = int(counts.linears * each + held / copies) - held
        why = (
            f"{each} bytes a weight while the LUTs are folded, before anything is packed (docs/choices.md, folded LUT)"
        )
        lines.append(Line("folding", max(extra, 0), LOADING, why))
    return lines


def _xnnpack_weights(plan: Plan, shape: ModelShape, bits: int | None, stored: int) -> list[Line]:
    counts, (linear, head) = count(shape), kernel_bits(plan, shape, bits)
    packed = int(counts.linears * linear + (counts.head + counts.embedding) * head) // 8
    why = f"{linear:.1f} bits a weight in the linears; these and the head packed by XNNPACK, the embedding in the file"
    return [Line("weights", packed, HELD, why), Line("model file", stored, MAPPED, "read once")]


def _cache(plan: Plan, shape: ModelShape) -> Line:
    each = cache_width(plan)
    size = 2 * shape.key_channels * plan.context_length * each
    formula = f"2 x {shape.key_channels} channels in {shape.layers} layers x {plan.context_length} tokens"
    return Line("cache", size, HELD, f"{formula} x {each} bytes")


def _activations(plan: Plan, shape: ModelShape) -> Line:
    """Of a prompt in one call: the residual stream twice, the MLP's three widths, and logits of one token."""
    tokens = plan.prefill_length or plan.context_length
    each = 2 if by_coreml(plan) and plan["weights"] != "fp32" else 4
    widest = 2 * shape.hidden_size + 3 * max(shape.intermediate_size, shape.heads * shape.head_dim)
    why = f"a prompt of {tokens} tokens in one call x {widest} values x {each} bytes, and the logits of one token"
    arena = constant("onnx.arena").value if plan.format == "onnx" else 1
    return Line("activations", int(tokens * widest * each * arena) + 4 * shape.vocab_size, HELD, why)


def runtime_line(plan: Plan) -> Line:
    """What the library of the plan's runtime takes."""
    found = constant(f"{runtime_of(plan)}.library_bytes")
    return Line("runtime", int(found.value), HELD, found.source)


def _tokenizer(shape: ModelShape) -> Line:
    each = constant("tokenizer.bytes_per_id")
    return Line("tokenizer", int(each.value * shape.vocab_size), HELD, f"{each.value:g} bytes an id: {each.source}")


def app_line(profile: DeviceProfile) -> Line:
    """What an app takes that does nothing else."""
    found = constant(f"app.{profile.os}_bytes")
    return Line("the app itself", int(found.value), HELD, found.source)
