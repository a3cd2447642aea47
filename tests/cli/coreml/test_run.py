"""`satchel coreml run` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from mil_programs import mb, normal, save
from typer.testing import CliRunner, Result

from satchel.cli import app


def run(*arguments: object, code: int = 0) -> Result:
    """Runs the command in this process."""
    done = CliRunner().invoke(app, ["coreml", "run", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def add_up(x: Any, total: Any) -> Any:
    """total += x, and the double of it."""
    total_now = mb.add(x=mb.read_state(input=total), y=x)
    mb.coreml_update_state(state=total, value=total_now)
    return mb.mul(x=total_now, y=np.float16(2), name="y")


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = {"x": ((1, 3), "float16")}
    return save(tmp_path_factory.mktemp("run"), add_up, one, {"total": ((1, 3), "float16")})


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    w = normal((2, 4))
    build = {
        "main": lambda x: mb.linear(x=x, weight=w, name="y"),
        "minus": lambda x: mb.linear(x=x, weight=-w, name="y"),
    }
    return save(tmp_path_factory.mktemp("run"), build, {"x": ((1, 4), "float32")}), w


def test_arrays_in_and_out(linear: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    package, w = linear
    x, given, result = normal((1, 4), 1), tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(given, x=x)
    done = run(package, "--inputs", given, "--outputs", result)
    assert "1 x 2" in done.stdout and "float32" in done.stdout and "written" in done.stdout
    np.testing.assert_allclose(arrays(result)["y"], x @ w.T, rtol=1e-5)
    first = result.read_bytes()
    run(package, "--inputs", given, "--outputs", result)
    assert result.read_bytes() == first, "equal outputs give equal files"
    report = json.loads(run(package, "--inputs", given, "--json", "--function", "minus", "--max-memory", "1KiB").stdout)
    (row,) = report["outputs"]
    assert (row["name"], row["shape"], row["nan"], row["infinite"]) == ("y", [1, 2], 0, 0)
    assert row["mean"] == pytest.approx(float((-x @ w.T).mean()), rel=1e-4)
    assert len(report["ms"]) == 1 and report["overflow"] is None
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_without_inputs_it_says_what_is_wanted(linear: tuple[Path, np.ndarray]) -> None:
    package, _ = linear
    done = run(package, code=2)
    assert all(word in done.output for word in ("multiarray", "[1, 4]", "float32", "main, minus", "--random"))
    found = json.loads(run(package, "--json", code=2).stdout)
    assert found["inputs"] == [
        {"name": "x", "kind": "multiarray", "shape": [1, 4], "allowed": "[1, 4]", "dtype": "float32"}
    ]
    assert found["functions"] == ["main", "minus"]


def test_steps_share_a_state(stateful: Path, tmp_path: Path) -> None:
    x, given, result = normal((4, 1, 3)).astype(np.float16), tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(given, **{"x@steps": x})
    done = run(stateful, "--inputs", given, "--outputs", result, "--steps", 4, "--precision", "fp16")
    assert "3 more" in done.stdout
    found = arrays(result)
    assert list(found) == ["y@steps"] and found["y@steps"].dtype == np.float16
    np.testing.assert_allclose(found["y@steps"], 2 * np.cumsum(x.astype(np.float32), 0), rtol=4e-3, atol=4e-3)
    np.savez(given, x=x[0])
    run(stateful, "--inputs", given, "--outputs", result, "--steps", 3)
    np.testing.assert_allclose(arrays(result)["y@steps"][2], 6 * x[0].astype(np.float32), rtol=2e-3)
    np.savez(given, **{"x@steps": x})
    assert "first axis of 2" in run(stateful, "--inputs", given, "--steps", 2, code=2).output


def test_random_values_repeat(stateful: Path, tmp_path: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        run(stateful, "--random", "--seed", seed, "--outputs", tmp_path / "out.npz")
        found.append((tmp_path / "out.npz").read_bytes())
    assert found[0] == found[1] != found[2]


def test_pictures_and_overflow(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    place = mb.placeholder  # an image input needs coremltools' own description of it

    @mb.program(input_specs=[place((1, 3, 4, 5))], opset_version=ct.target.iOS17)
    def program(picture: Any) -> Any:
        half = mb.cast(x=picture, dtype="fp16")
        return mb.cast(x=mb.mul(x=half, y=np.float16(1000), name="grown"), dtype="fp32", name="y")

    path = tmp_path / "m.mlpackage"
    ct.convert(
        program, inputs=[ct.ImageType("picture", (1, 3, 4, 5), color_layout=ct.colorlayout.BGR)],
        pass_pipeline=ct.PassPipeline.EMPTY, minimum_deployment_target=ct.target.iOS17,
    ).save(str(path))  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 60, (4, 5, 3)).astype(np.uint8)
    pixels[1, 2, 0] = 66
    image_module.fromarray(pixels).save(tmp_path / "cat.png")
    result = tmp_path / "out.npz"
    done = run(path, "--image", f"picture={tmp_path / 'cat.png'}", "--outputs", result, "--precision", "fp16")
    assert "grown" in done.output and "overflows fp16 in 1 elements" in done.output
    wanted = np.moveaxis(pixels[..., ::-1], -1, 0)[None].astype(np.float32) * 1000
    np.testing.assert_allclose(arrays(result)["y"], np.where(wanted > 65504, np.inf, wanted), rtol=1e-3)
    for wrong in ("cat.png", "y=cat.png", f"picture={tmp_path}/absent.png", f"picture={result}"):
        assert "picture" in run(path, "--image", wrong, code=2).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--inputs", "absent.npz"), "file of inputs"),
        (("--inputs", __file__), "an .npz file"),
        (("--random", "--function", "other"), "function of the model"),
        (("--random", "--precision", "fp8"), "precision"),
        (("--random", "--max-memory", "much"), "--max-memory"),
        (("--random", "--outputs", "/absent/folder/out.npz"), "cannot be written"),
    ],
)
def test_what_it_refuses(linear: tuple[Path, np.ndarray], arguments: tuple[str, ...], message: str) -> None:
    assert message in run(linear[0], *arguments, code=2).output


def test_pickled_inputs_are_refused(linear: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([{"not": "numbers"}], dtype=object))
    assert "file of inputs" in run(linear[0], "--inputs", tmp_path / "in.npz", code=2).output


def test_from_a_shell(linear: tuple[Path, np.ndarray]) -> None:
    command = [sys.executable, "-m", "satchel", "coreml", "run", str(linear[0]), "--random"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 x 2" in done.stdout
