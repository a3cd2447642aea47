"""Every rule on a small program that breaks it, and on its neighbour that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from coremltools.converters.mil.mil.types import type_mapping
from mil_programs import ct, mb, normal, save

from satchel.devices.rulebook import NO_CHECK, load_rules
from satchel.runtime.errors import UsageError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.checks import CHECKS, Report, judge, resolve_target
from satchel.runtime.mil.package import open_package

Make = Callable[[Path], Path]
RULES = {rule.id: rule for name in ("core-ml", "neural-engine") for rule in load_rules(name)}
MODEL = "Data/com.apple.CoreML/model.mlmodel"
X16 = {"x": ((1, 4, 1, 8), "float16")}
INFINITY = np.float16(-np.inf)


@dataclass(frozen=True)
class Case:
    """Two programs, or one program and two targets, or one program and two settings of a rule.

    Attributes:
        bad, good: make packages; `good` is `bad` where there is one program only.
        target, good_target: for which they are judged.
        settings, good_settings: parameters of the rule to put in place of those in its file.
    """

    bad: Make
    good: Make | None = None
    target: str | None = None
    good_target: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    good_settings: dict[str, Any] = field(default_factory=dict)


def judged(path: Path, rule: str, target: str | None, settings: dict[str, Any]) -> Report:
    rules = RULES | {rule: replace(RULES[rule], parameters={**RULES[rule].parameters, **settings})}
    return judge(open_package(path), resolve_target(target), rules.values())


# ---- how programs are made -----------------------------------------------------------------------------------------


def program(body: Callable[..., Any], inputs: Any = None, states: Any = None, target: Any = ct.target.iOS18) -> Make:
    return lambda folder: save(folder, body, inputs or X16, states, target)


def edited(make: Make, change: Callable[[Any], None]) -> Make:
    def edit(folder: Path) -> Path:
        path = make(folder)
        model = pb.Model.FromString((path / MODEL).read_bytes())
        change(model)
        (path / MODEL).write_bytes(model.SerializeToString())
        return path

    return edit


def of_shape(*shape: int, dtype: str = "float16") -> Make:
    return program(lambda x: mb.relu(x=x), {"x": (shape, dtype)})


def codes(shape: tuple[int, ...], name: str, most: int) -> np.ndarray:
    plain = np.arange(np.prod(shape)).reshape(shape) % most
    return plain.astype(type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name)))


def palette(shape: tuple[int, ...] = (8, 4, 1, 1), groups: int = 1, bits: int = 4, vector: int = 1) -> Any:
    """A palettized kernel, with tables for groups of output channels."""
    lut = normal((groups, *([1] * (len(shape) - 1)), 2**bits, vector)).astype(np.float16)
    kwargs = {"vector_axis": np.int32(0)} if vector > 1 else {}
    indices = codes((shape[0] // vector, *shape[1:]), f"uint{bits}", 2**bits)
    return mb.constexpr_lut_to_dense(indices=indices, lut=lut, **kwargs)


def scaled(data: Any, shape: tuple[int, ...]) -> Any:
    return mb.constexpr_blockwise_shift_scale(data=data, scale=np.full(shape, 0.5, np.float16))


def conv(weight: Callable[[], Any], **settings: Any) -> Make:
    return program(lambda x: mb.conv(x=x, weight=weight(), pad_type="same", **settings))


def kernel(width: int) -> Make:
    return conv(lambda: normal((2, 4, 1, width)).astype(np.float16))


def dense(*shape: int) -> np.ndarray:
    return normal(shape).astype(np.float16)


def int8_kernel() -> Any:
    return mb.constexpr_affine_dequantize(
        quantized_data=np.ones((8, 4, 1, 1), np.int8), zero_point=np.int8(0), scale=np.float16(0.1), axis=np.int32(0)
    )


def masked(mask: Any, then: Callable[[Any], Any] = lambda y: mb.softmax(x=y, axis=-1)) -> Make:
    return program(lambda x: then(mb.add(x=x, y=mask)))


def with_states(count: int = 1, shape: tuple[int, ...] = (1, 4, 64, 32), tokens: int = 1, reads: bool = True) -> Make:
    """Each state is read, written at its first places, and written back."""

    def body(x: Any, **states: Any) -> Any:
        for state in states.values():
            update = dense(*shape[:2], tokens, shape[3])
            old = mb.read_state(input=state) if reads else dense(*shape)
            end = np.int32([*shape[:2], tokens, shape[3]])
            new = mb.slice_update(x=old, update=update, begin=np.int32([0, 0, 0, 0]), end=end)
            mb.coreml_update_state(state=state, value=new)
        return mb.relu(x=x)

    return program(body, None, {f"s{i}": (shape, "float16") for i in range(count)})


def forgotten(x: Any, s: Any) -> Any:
    return mb.add(x=x, y=mb.reduce_sum(x=mb.read_state(input=s), axes=[-1], keep_dims=True))


def palettized_state(writer: str) -> Make:
    def body(x: Any, s: Any) -> Any:
        mb.coreml_update_state(state=s, value=mb.add(x=mb.read_state(input=s), y=np.float16(1)))
        return mb.conv(x=x, weight=palette())

    def name_writer(model: Any) -> None:
        if writer:
            model.description.metadata.userDefined["com.github.apple.coremltools.version"] = writer

    return edited(program(body, None, {"s": ((1, 4, 64, 32), "float16")}), name_writer)


def palettes_and_dense(size: int) -> Make:
    def body(x: Any) -> Any:
        y = mb.conv(x=x, weight=scaled(palette((8, 4, 1, 1)), (8, 1, 1, 1)))
        return mb.conv(x=y, weight=dense(size, 8, 1, 1))

    return program(body)


def rms(x: Any, scale_first: bool = False) -> Any:
    if scale_first:
        top = mb.reduce_max(x=mb.abs(x=x), axes=[1], keep_dims=True)
        x = mb.real_div(x=x, y=mb.maximum(x=top, y=np.float16(1e-3)))
    mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[1], keep_dims=True)
    return mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=np.float16(1e-5)))


def attention(x: Any) -> Any:
    return mb.scaled_dot_product_attention(query=x, key=x, value=x)


def unknown_axis(model: Any) -> None:
    tensor = model.mlProgram.functions["main"].inputs[0].type.tensorType
    tensor.dimensions[0].unknown.variadic = False


def rename_op(model: Any) -> None:
    (block,) = model.mlProgram.functions["main"].blockSpecializations.values()
    next(op for op in block.operations if op.type == "relu").type = "my_relu"


def earlier_opset(model: Any) -> None:
    function = model.mlProgram.functions["main"]
    function.blockSpecializations["CoreML7"].CopyFrom(function.blockSpecializations[function.opset])
    del function.blockSpecializations[function.opset]
    function.opset = "CoreML7"


def rename_input(model: Any) -> None:
    model.description.input[0].name = "y"


def table_lookup(x: Any) -> Any:
    rows = mb.gather(x=dense(64, 8), indices=np.int32([1, 2]), axis=0)
    return mb.add(x=x, y=mb.reduce_sum(x=rows, axes=[0]))


RELU = program(lambda x: mb.relu(x=x))
QUANTIZED = program(
    lambda x: mb.dequantize(
        input=mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8"), scale=np.float16(0.1)
    )
)
BLOCKS = program(
    lambda x: mb.matmul(x=x, y=scaled(codes((8, 64), "int4", 7), (8, 2))),
    {"x": ((1, 8), "float16")},
)
PER_CHANNEL = program(
    lambda x: mb.matmul(x=x, y=scaled(codes((8, 64), "int4", 7), (8, 1))),
    {"x": ((1, 8), "float16")},
)

CASES: dict[str, Case] = {
    "CM01": Case(program(attention), None, "iOS17", "iOS18"),
    "CM02": Case(edited(program(attention), earlier_opset), program(attention)),
    "CM03": Case(program(attention), None, "macOS14", "macOS15"),
    "CM04": Case(edited(RELU, rename_op), RELU),
    "CM05": Case(conv(palette), None, "iOS17", "iphone-15-pro"),
    "CM06": Case(program(forgotten, None, {"s": ((1, 4, 1, 32), "float16")}), with_states()),
    "CM07": Case(with_states(reads=False), with_states()),
    "CM08": Case(program(lambda x: mb.relu(x=x), target=ct.target.iOS16), None, "iOS15", "iOS16"),
    "CM09": Case(edited(RELU, rename_input), RELU),
    "NE01": Case(of_shape(1, 30000, 1, 1), of_shape(1, 15000, 1, 2)),
    "NE02": Case(of_shape(1, 1, 1, 16385), of_shape(1, 65536, 1, 16384), "H15", "H15"),
    "NE03": Case(of_shape(1, 1, 1, 65537), of_shape(1, 1, 1, 65536), "H16", "H16"),
    "NE04": Case(of_shape(1, 1, 1, 1, 1, 4), of_shape(1, 1, 1, 1, 4)),
    "NE05a": Case(of_shape(1, 4, dtype="float32"), of_shape(1, 4)),
    "NE05b": Case(program(lambda x: mb.add(x=x, y=1), {"x": ((4,), "int32")}), RELU),
    "NE05c": Case(of_shape(1, 4, dtype="float32"), of_shape(1, 4)),
    "NE06": Case(edited(RELU, unknown_axis), RELU),
    "NE07": Case(program(lambda x: mb.linear(x=x, weight=dense(4, 8))), conv(lambda: dense(8, 4, 1, 1))),
    "NE08a": Case(masked(np.full((1, 1, 1, 8), INFINITY)), masked(np.full((1, 1, 1, 8), np.float16(-4e4)))),
    "NE08b": Case(
        program(lambda x: mb.softmax(x=x, axis=-1), {"x": ((1, 1024, 1, 1024), "float16")}),
        program(lambda x: mb.softmax(x=x, axis=1), {"x": ((1, 1024, 1, 1024), "float16")}),
    ),
    "NE09": Case(program(attention), program(lambda x: mb.softmax(x=x, axis=1))),
    "NE10": Case(program(rms), program(lambda x: rms(x, scale_first=True))),
    "NE11a": Case(program(table_lookup), None, "H13", "H14"),
    "NE11b": Case(program(table_lookup), None, settings={"least_bytes": 1024}, good_settings={"least_bytes": 1025}),
    "NE12a": Case(program(lambda x: mb.mod(x=x, y=np.float16(3))), RELU),
    "NE12b": Case(program(lambda x: mb.sin(x=x)), None, "H14", "H15"),
    "NE12c": Case(
        program(lambda x: mb.reduce_argmax(x=x, axis=-1), {"x": ((1, 2049), "float16")}),
        program(lambda x: mb.reduce_argmax(x=x, axis=0), {"x": ((1, 2049), "float16")}),
    ),
    "NE13a": Case(kernel(14), kernel(13), "H13", "H13"),
    "NE13b": Case(kernel(17), kernel(16), "H15", "H15"),
    "NE13c": Case(conv(lambda: dense(2, 4, 1, 1), strides=[1, 5]), conv(lambda: dense(2, 4, 1, 1), strides=[1, 6])),
    "NE13d": Case(conv(palette, strides=[3, 3]), conv(palette, strides=[2, 2])),
    "NE14": Case(conv(int8_kernel), None, "H13", "H14"),
    "NE15": Case(BLOCKS, PER_CHANNEL),
    "NE16a": Case(conv(lambda: palette((32, 4, 1, 1), 8)), conv(lambda: palette((32, 4, 1, 1), 4))),
    "NE16b": Case(conv(lambda: palette(bits=3)), conv(palette)),
    "NE17a": Case(conv(lambda: scaled(palette(), (8, 1, 1, 1))), PER_CHANNEL),
    "NE17b": Case(palettes_and_dense(256), palettes_and_dense(8)),
    "NE17c": Case(palettized_state("9.0"), palettized_state("8.3.0")),
    "NE18": Case(QUANTIZED, None, "H15", "H16"),
    "NE19a": Case(conv(lambda: dense(64, 4, 1, 1)), None, "iOS18", "macOS15", {"most_bytes": 64}, {"most_bytes": 64}),
    "NE19b": Case(conv(lambda: dense(64, 4, 1, 1)), None, settings={"most_bytes": 64}),
    "NE21a": Case(with_states(shape=(1, 4, 64, 33)), with_states(shape=(1, 4, 33, 64))),
    "NE21b": Case(with_states(3), with_states(2)),
    "NE21c": Case(with_states(tokens=33), with_states(tokens=32)),
    "NE22": Case(with_states(), None, settings={"tokens": 63}, good_settings={"tokens": 64}),
    "NE23": Case(conv(lambda: dense(64, 4, 1, 1)), None, settings={"least_channels": 64}),
    "NE27": Case(program(lambda x: mb.silu(x=x)), program(lambda x: mb.mul(x=x, y=mb.sigmoid(x=x)))),
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(CASES))
def test_a_rule_finds_what_breaks_it_and_nothing_else(rule: str, tmp_path: Path) -> None:
    case = CASES[rule]
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    bad = judged(case.bad(tmp_path / "bad"), rule, case.target, case.settings)
    good = judged((case.good or case.bad)(tmp_path / "good"), rule, case.good_target, case.good_settings)
    found = [f for f in bad.findings if f.rule.id == rule]
    assert found
    assert rule not in {f.rule.id for f in good.findings}
    assert all(f.found.what for f in found)
    assert bad.failed is any(f.severity == "error" for f in bad.findings)


def test_every_rule_has_a_check_of_its_name_or_a_reason() -> None:
    with_check = {rule.id for rule in RULES.values() if rule.check != NO_CHECK}
    assert set(CHECKS) == with_check == set(CASES)
    for identifier, check in CHECKS.items():
        assert RULES[identifier].check == check.__name__
    for rule in RULES.values():
        assert bool(rule.reason) is (rule.check == NO_CHECK)
        assert all((rule.statement, rule.why, rule.advice, rule.source))
    numbers = {rule.id[2:4] for rule in RULES.values() if rule.id.startswith("NE")}
    assert numbers == {f"{n:02}" for n in range(1, 29)}


def test_ops_by_system_are_those_of_coremltools() -> None:
    parameters = RULES["CM03"].parameters
    first = {name: max(15, int(min(versions).name.removeprefix("iOS"))) for name, versions in core_ops().items()}
    for system in (15, 16, 17, 18):
        ours = set(parameters[f"ios{system}"]) - {"write_state"}  # how a saved program spells coreml_update_state
        assert ours == {name for name, version in first.items() if version == system}
    known = {name for names in parameters.values() for name in names}
    for rule in RULES.values():
        assert set(rule.parameters.get("ops", ())) <= known
        assert set(rule.parameters.get("through", ())) <= known
        assert set(rule.parameters.get("ends", ())) <= known


def core_ops() -> dict[str, Any]:
    return {n: v for n, v in SSAOpRegistry.core_ops.items() if n not in ("_const_symbolic", "coreml_update_state")}


# ---- masks ---------------------------------------------------------------------------------------------------------


def where(x: Any) -> Any:
    chosen = mb.select(cond=np.tile([True, False], 4), a=x, b=np.full((1, 4, 1, 8), INFINITY))
    return mb.softmax(x=chosen, axis=-1)


def through_fill(x: Any) -> Any:
    mask = mb.fill(shape=[1, 1, 1, 8], value=INFINITY)
    return mb.softmax(x=mb.add(x=x, y=mb.reshape(x=mask, shape=[1, 1, 1, 8])), axis=-1)


def huge_in_fp32(x: Any) -> Any:
    mask = mb.cast(x=np.full((1, 1, 1, 8), np.finfo(np.float32).min, np.float32), dtype="fp16")
    return mb.softmax(x=mb.add(x=x, y=mask), axis=-1)


def in_a_branch(x: Any) -> Any:
    mask = np.full((1, 1, 1, 8), INFINITY)
    even = mb.equal(x=mb.reduce_sum(x=x, axes=[0, 1, 2, 3], keep_dims=False), y=np.float16(0))
    return mb.cond(
        pred=even, _true_fn=lambda: mb.softmax(x=mb.add(x=x, y=mask), axis=-1), _false_fn=lambda: mb.relu(x=x)
    )


@pytest.mark.parametrize("body", [where, through_fill, huge_in_fp32, in_a_branch])
def test_minus_infinity_is_found_however_it_is_made(body: Any, tmp_path: Path) -> None:
    report = judged(program(body)(tmp_path), "NE08a", None, {})
    assert [f.severity for f in report.findings if f.rule.id == "NE08a"] == ["error"]


def test_minus_infinity_that_no_softmax_sees_is_a_warning(tmp_path: Path) -> None:
    path = masked(np.full((1, 1, 1, 8), INFINITY), then=lambda y: mb.relu(x=y))(tmp_path)
    report = judged(path, "NE08a", None, {})
    assert [f.severity for f in report.findings if f.rule.id == "NE08a"] == ["warning"]


# ---- what cannot be told -------------------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    path = palettized_state("")(tmp_path)
    report = judged(path, "NE19a", None, {"most_bytes": 64})
    assert {"CM01", "CM03", "CM08", "NE17c", "NE19a"} == {u.rule for u in report.unjudged}
    assert not {"NE17c", "NE19a"} & {f.rule.id for f in report.findings}
    assert report.to_json()["counts"]["error"] == report.count("error")


def test_a_mask_that_the_app_fills_is_not_judged(tmp_path: Path) -> None:
    inputs = {"x": ((1, 4), "float16"), "mask": ((1, 4), "float16")}
    path = program(lambda x, mask: mb.softmax(x=mb.add(x=mb.exp(x=x), y=mask), axis=-1), inputs)(tmp_path)
    assert "mask" in " ".join(u.reason for u in judged(path, "NE08a", None, {}).unjudged if u.rule == "NE08a")


# ---- states and targets --------------------------------------------------------------------------------------------


def test_a_state_written_back_unchanged_counts_as_never_written(tmp_path: Path) -> None:
    def body(x: Any, s: Any) -> Any:
        old = mb.read_state(input=s)
        mb.coreml_update_state(state=s, value=old)
        return mb.add(x=x, y=mb.reduce_sum(x=old, axes=[-1], keep_dims=True))

    path = program(body, None, {"s": ((1, 4, 1, 32), "float16")})(tmp_path)
    assert [f.rule.id for f in judged(path, "CM06", None, {}).findings if f.severity == "error"] == ["CM06"]


@pytest.mark.parametrize(
    ("name", "ios", "engine", "system"),
    [
        (None, 0, "", ""), ("iphone-15-pro", 18, "H16", "ios"), ("iOS17", 17, "", "ios"), ("ios-18.2", 18, "", "ios"),
        ("macOS14", 17, "", "macos"), ("macos26", 26, "", "macos"), ("h13", 0, "H13", ""),
    ],
)  # fmt: skip
def test_targets(name: str | None, ios: int, engine: str, system: str) -> None:
    target = resolve_target(name)
    assert (target.ios, target.engine, target.system) == (ios, engine, system)


@pytest.mark.parametrize("name", ["pixel-9", "iOS", "iOS5", "H12", "android15", "nothing"])
def test_unknown_targets(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_target(name)
    assert caught.value.got
    assert caught.value.wanted


def test_a_machine_without_an_engine_has_no_rules_of_the_engine(tmp_path: Path) -> None:
    target = replace(resolve_target("iOS18"), has_engine=False)
    report = judge(open_package(masked(INFINITY)(tmp_path)), target, RULES.values())
    assert not report.findings
    assert all(identifier.startswith("CM") for identifier in report.judged)


def test_a_good_program_has_no_findings(tmp_path: Path) -> None:
    body = lambda x: mb.softmax(x=mb.conv(x=x, weight=dense(8, 4, 1, 1)), axis=1)  # noqa: E731
    report = judged(program(body)(tmp_path), "NE01", "iphone-15-pro", {})
    assert (report.findings, report.unjudged) == ((), ())
    assert len(report.judged) > 30
