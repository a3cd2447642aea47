"""The command as a user types it: output, --json, exit codes, quiet when not on a terminal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_folder import tiny_folder


def satchel(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "satchel", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="module")
def bundle(model):
    done = satchel("export", model, "-d", "pixel-9", "--weights", "fp32", "--context", 128, "-o", model.parent / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "progress is quiet when it is not on a terminal"
    assert "tiny-pixel-9.satchel" in done.stdout
    assert "passed" in done.stdout, "an export validates unless it is told not to"
    return model.parent / "out" / "tiny-pixel-9.satchel"


def test_export_json_of_several_devices(model, tmp_path):
    done = satchel(
        "export", model, "-d", "pixel-9", "-d", "iphone-15-pro", "--effort", "low", "--context", 128, "-o", tmp_path,
        "--no-validate", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), "no package talks while it is imported"
    found = json.loads(done.stdout)["bundles"]
    assert [b["format"] for b in found] == ["onnx", "coreml"]
    assert all((Path(b["path"]) / "manifest.json").exists() and b["weights"] == "palette" for b in found)


def test_validate(bundle):
    done = satchel("validate", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert "own weights" in done.stdout
    assert json.loads((bundle / "parity.json").read_text())["passed"] is True
    impossible = satchel("validate", bundle, "--limit", "quality.kl_mean=-1", "--json")
    assert impossible.returncode == 1
    failure = json.loads(impossible.stdout)["failures"][0]
    assert failure["figure"] == "kl_mean"
    assert failure["next"]
    shown = satchel("validate", bundle, "--limit", "quality.kl_mean=-1")
    assert shown.returncode == 1
    assert "kl_mean is" in shown.stdout


def test_run_and_chat(bundle):
    done = satchel("run", bundle, "--prompt", "Hello", "--max-new-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["answer"]
    streamed = satchel("run", bundle, "--prompt", "Hello", "--max-new-tokens", 4)
    assert streamed.stdout == answer + "\n"
    talk = satchel("run", bundle, "--chat", "--max-new-tokens", 3, "--json", stdin="Hello\nAnd you?\n")
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout.count('"answer"') == 2
    assert satchel("run", bundle).returncode == 2


def test_inspect(bundle):
    found = json.loads(satchel("inspect", bundle, "--weights", "--json").stdout)
    assert found["format"] == "onnx"
    assert {t["name"] for t in found["tensors"]} >= {"embed_tokens", "layers.1.mlp.down_proj"}
    assert "group_query_attention" in satchel("inspect", bundle).stdout
    assert satchel("inspect", bundle / "model.onnx", "--weights").returncode == 0


def test_bench(bundle):
    done = satchel("bench", bundle, "--prompt-tokens", 8, "--new-tokens", 4, "--repeat", 1, "--json")
    found = json.loads(done.stdout)
    assert found["decode_tokens_per_second"] > 0
    assert satchel("bench", bundle, "--prompt-tokens", 1000).returncode == 2


def test_devices():
    found = {d["name"]: d for d in json.loads(satchel("devices", "--json").stdout)}
    assert found["raspberry-pi-5"]["isa"] == ["dotprod", "fp16"]
    assert "iphone-15-pro" in satchel("devices").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "{model}", "-d", "nokia-3310"), "unknown device"),
        (("export", "{model}", "-d", "pixel-9", "--format", "coreml"), "cannot run coreml"),
        (("export", "{model}"), "device"),
        (("export", "./nowhere", "-d", "pixel-9"), "no such model"),
        (("validate", "{model}"), "manifest.json"),
        (("inspect", "./nowhere"), "nothing here"),
        (("run", "./nowhere", "--prompt", "x"), "nowhere"),
        (("devices", "--colour"), "No such option"),
    ],
)
def test_bad_input_is_exit_code_2_and_says_what(model, arguments, says):
    filled = [a.format(model=model) for a in arguments]
    done = satchel(*filled)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if says not in ("device", "No such option"):
        answer = json.loads(satchel(*filled, "--json").stdout)
        assert says in " ".join(map(str, answer.values()))
