"""What the checks see through, what they leave open, and for whom they judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb
from rule_programs import (
    INFINITY,
    MODEL,
    RULES,
    codes,
    dense,
    edited,
    judged,
    masked,
    palettized_state,
    program,
    scaled,
)

from satchel.runtime.coreml.checks import check_package, judge, resolve_target
from satchel.runtime.coreml.inspection import inspect_program
from satchel.runtime.errors import SatchelError, UsageError
from satchel.runtime.mil.package import open_package


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


# ---- palettes of integers ------------------------------------------------------------------------------------------


def test_a_scale_on_a_palette_of_int8_entries_is_one_of_codes(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        lut = np.arange(16, dtype=np.int8).reshape(1, 1, 1, 1, 16, 1)
        table = mb.constexpr_lut_to_dense(indices=codes((8, 4, 1, 1), "uint4", 16), lut=lut)
        return mb.conv(x=x, weight=scaled(table, (1, 1, 1, 1)))

    found = {f.rule.id for f in judged(program(body)(tmp_path), "NE17a", None, {}).findings}
    assert not {"NE15", "NE17a", "NE17b"} & found


# ---- altered packages ----------------------------------------------------------------------------------------------


def test_an_altered_package_is_judged_or_refused_never_a_crash(tmp_path: Path) -> None:
    path = palettized_state("9.0")(tmp_path)
    model, weights = path / MODEL, path / "Data/com.apple.CoreML/weights/weight.bin"
    whole = {file: file.read_bytes() for file in (model, weights)}
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(300):
        file = weights if i % 6 == 0 else model
        content = bytearray(whole[file])
        if i % 5 == 0:
            content = content[: rng.integers(len(content))]
        for place in rng.integers(max(1, len(content)), size=int(rng.integers(1, 6))) if content else ():
            content[place] = rng.integers(256)
        file.write_bytes(content)
        for read in (check_package, inspect_program):
            try:
                read(path)
            except SatchelError:
                refused += 1
        file.write_bytes(whole[file])
    assert 50 < refused < 550
    assert check_package(path).findings


@pytest.mark.parametrize("op_type", ["const", "constexpr_lut_to_dense"])
def test_a_constant_that_makes_nothing_is_passed_over(op_type: str, tmp_path: Path) -> None:
    def strip(model: Any) -> None:
        (block,) = model.mlProgram.functions["main"].blockSpecializations.values()
        for op in block.operations:
            if op.type == op_type:
                del op.outputs[:]

    path = edited(palettized_state("9.0"), strip)(tmp_path)
    assert inspect_program(path)["weights"]["count"] >= 0
    assert check_package(path).judged
