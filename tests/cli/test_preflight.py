"""`satchel preflight` as a user types it."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from typer.testing import CliRunner, Result

from satchel.cli import app
from satchel.devices.profile import device_names

LLAMA_8B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip


def preflight(*arguments: object, code: int = 0) -> Result:
    """Runs the command in this process."""
    done = CliRunner().invoke(app, ["preflight", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def as_json(*arguments: object, code: int = 0) -> dict:
    return json.loads(preflight(*arguments, "--json", code=code).stdout)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    folder = tmp_path / "llama-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


def test_the_demo_fits_a_phone():
    shown = preflight("smollm2", "--device", "pixel-9").stdout
    parts = ("weights", "cache", "activations", "runtime", "tokenizer", "needed", "an app may use")
    for words in ("Pixel 9: fits", *parts, "download and install", "decode: about", "prefill: about", "first load"):
        assert words in shown
    assert "would fit" not in shown
    engine = preflight("smollm2", "-d", "iphone-12").stdout
    assert "leaves the engine" in engine
    assert "NE11a" in engine


def test_a_configuration_alone_is_enough_and_what_would_fit_is_true(llama):
    found = as_json(llama, "-d", "iphone-13", code=1)
    (device,) = found["devices"]
    assert found["parameters"] == 8_030_261_248
    assert (device["verdict"], device["fits"]) == ("does not fit", False)
    needed = device["memory"]["needed_bytes"]
    held = sum(line["bytes"] for line in device["memory"]["lines"] if line["when"] == "held")
    assert needed >= held > device["limit_with_entitlement_bytes"]
    assert device["largest_parameters"] < found["parameters"]
    (idea, *_) = device["suggestions"]
    assert idea["model"]
    shown = preflight(llama, "-d", "iphone-13", code=1).stdout
    assert "What would fit" in shown
    assert idea["model"] in shown


def test_options_of_a_suggestion_make_it_fit(llama):
    asked = (llama, "-d", "iphone-15-pro", "--context", 32768)
    (device,) = as_json(*asked, code=1)["devices"]
    own = [idea for idea in device["suggestions"] if not idea["model"]]
    assert own
    for idea in own:
        (again,) = as_json(llama, "-d", "iphone-15-pro", *idea["options"].split())["devices"]
        assert (again["verdict"], again["memory"]["needed_bytes"]) == (idea["verdict"], idea["needed_bytes"])


def test_one_line_a_device_where_there_are_several(llama):
    shown = preflight("smollm2", "-d", "ios", "-d", "pixel-9").stdout
    assert sum(line.strip().startswith("iphone-") for line in shown.splitlines()) >= 10
    everyone = as_json("smollm2", "-d", "all")["devices"]
    assert [d["device"] for d in everyone] and {d["device"] for d in everyone} <= set(device_names())
    some = as_json(llama, "-d", "macbook-pro-m1-max", "-d", "iphone-12", code=1)["devices"]
    assert [d["fits"] for d in some] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-d", "nokia-3310"), "nokia"),
        (("-d", "pixel-9", "--format", "coreml"), "cannot run coreml"),
        (("-d", "pixel-9", "--weights", "int3"), "int3"),
        (("-d", "pixel-9", "--bits", 5), "bits"),
        (("-d", "pixel-9", "--weights", "int8", "--bits", 4), "bits"),
        (("-d", "pixel-9", "--context", 9_999_999), "context"),
        (("-d", "pixel-9", "--set", "linear"), "--set"),
        (("-d", "pixel-9", "--effort", "much"), "effort"),
    ],
)
def test_bad_input_is_named(arguments, words):
    failed = preflight("smollm2", *arguments, code=2)
    assert words in failed.output
    assert json.loads(preflight("smollm2", *arguments, "--json", code=2).stdout)["error"].endswith("Error")


def test_codes_of_a_file_are_kept_only_where_it_has_them(llama):
    (device,) = as_json("smollm2", "-d", "pixel-9", "--weights", "source")["devices"]
    assert device["weights"] == "source"
    assert "no codes" in preflight(llama, "-d", "pixel-9", "--weights", "source", code=2).output


def test_no_model(tmp_path):
    preflight("nowhere", "-d", "pixel-9", code=2)
    (tmp_path / "config.json").write_text('{"model_type": "made-up"}')
    assert "made-up" in preflight(tmp_path, "-d", "pixel-9", code=2).output


def test_of_a_hub_id_no_weights_are_fetched(llama, monkeypatch):
    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **o: asked.update(o) or str(llama))
    preflight("owner/llama", "-d", "macbook-pro-m1-max")
    assert not any("safetensors" in pattern for pattern in asked["allow_patterns"])


def test_own_profile_and_settled_choices(tmp_path, llama):
    from satchel.devices.profile import PROFILES

    own = tmp_path / "mine.toml"
    text = (PROFILES / "pixel-9.toml").read_text("utf-8").replace("memory_gb = 12", "memory_gb = 2")
    own.write_text("\n".join(line for line in text.splitlines() if "memory_most_gb" not in line))
    assert as_json(llama, "-d", own, code=1)["devices"][0]["limit_bytes"] == 1_000_000_000
    (device,) = as_json("smollm2", "-d", "iphone-15-pro", "--set", "weights=int8")["devices"]
    assert device["weights"] == "int8"
