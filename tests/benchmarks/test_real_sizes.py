"""The exports at real sizes: the code that runs them, on a tiny model; and, as a tier of their own, the runs."""

import json
import math
from dataclasses import asdict, replace

import pytest
import real_sizes
import real_sizes_table
from published_shapes import PARAMETERS, SHAPES

from satchel.devices.forecast import Request, forecast
from satchel.devices.profile import load_device
from satchel.export.shape import shape_of

MEASURED = json.loads(real_sizes_table.ROWS.read_text())


@pytest.mark.real_size
@pytest.mark.parametrize("name", real_sizes.MODELS)
def test_a_published_shape_is_exported_whole(name, tmp_path):
    rows = list(real_sizes.rows(name, real_sizes.MODELS[name], tmp_path, effort="low"))
    assert [row.format for row in rows] == list(real_sizes.MODELS[name].formats)
    assert {row.format: row.faults for row in rows} == {row.format: [] for row in rows}
    assert {row.parameters for row in rows} == {PARAMETERS[name]}


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    (found,) = real_sizes.rows(
        "tiny-openelm", real_sizes.TINY["tiny-openelm"], tmp_path_factory.mktemp("tiny"), effort="low"
    )
    return found


def test_a_tiny_shape_goes_the_same_way(row):
    """Of so small a model the golden data and the tokenizer are a part of the bundle that no forecast is asked for."""
    assert [fault for fault in row.faults if "forecast" not in fault] == []
    assert set(row.runs) == {"onnxruntime", "onnxruntime, fp32"}
    assert row.seconds > 0 and 100 < row.peak_mb < 2000


def test_what_is_wrong_is_said(row):
    bad = dict(row.runs["onnxruntime"], broken=["kl_mean"], finite=False)
    worse = replace(
        row, peak_mb=2500, below_fp32=60.0, forecast_bytes=row.bytes * 2, opened={"errors": ["NE1"]},
        runs={"onnxruntime": bad},
    )  # fmt: skip
    said = " ".join(worse.faults)
    for word in ("2500 MB", "60.0%", "forecast off by 100.0%", "NE1", "NaN", "kl_mean beyond"):
        assert word in said, word


def test_the_document_keeps_a_row_of_each(row, tmp_path, monkeypatch):
    document = tmp_path / "real-sizes.md"
    document.write_text(f"before\n\n{real_sizes_table.BEGIN}\nold\n{real_sizes_table.END}\n\nafter\n")
    monkeypatch.setattr(real_sizes_table, "DOCUMENT", document)
    monkeypatch.setattr(real_sizes_table, "ROWS", tmp_path / "rows.json")
    other = replace(row, model="another", parameters=7, format="coreml", opened={"packages": 3})
    for new in (row, other, replace(row, peak_mb=777)):
        real_sizes_table.write_document([asdict(new)])
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    lines = [line for line in text.splitlines() if line.startswith(("| another", "| tiny-openelm"))]
    assert len(lines) == 2 + 4  # exports, and their runs
    assert "coreml, 3 packages" in lines[0] and "| 777 |" in lines[1]
    real_sizes_table.write_document()
    assert document.read_text() == text


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_are_the_published_ones(name):
    from random_checkpoint import names_and_shapes

    assert sum(math.prod(shape) for shape in names_and_shapes(SHAPES[name]).values()) == PARAMETERS[name]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row['model']}-{row['format']}-{row['effort']}")
def test_the_forecast_of_a_bundle_is_near_what_it_came_to(row, tmp_path):
    """Of the sizes that were measured; a forecast is made of the configuration alone."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPES[row["model"]]))
    shape, _ = shape_of(str(tmp_path))
    asked = Request(format=row["format"], weights=row["weights"], by_loss=row["effort"] != "low")
    found = forecast(load_device(row["device"]), shape, asked)
    assert found.storage.bundle == pytest.approx(row["bytes"], rel=real_sizes.FORECAST / 100)
