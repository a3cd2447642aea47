"""`satchel plan` as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from satchel.cli import app
from satchel.devices.groups import expand
from satchel.devices.rulebook import all_rules
from satchel.export.checkpoint.gguf_file import GgufCheckpoint

LLAMA_8B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}  # fmt: skip


def plan(*arguments: object, code: int = 0) -> Result:
    """Runs the command in this process."""
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def as_json(*arguments: object, code: int = 0) -> dict:
    return json.loads(plan(*arguments, "--json", code=code).stdout)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder whose weights are not there."""
    folder = tmp_path / "llama-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


def test_every_choice_is_shown_with_what_was_turned_down_and_why(monkeypatch):
    monkeypatch.setattr(GgufCheckpoint, "_read", lambda *_: pytest.fail("weights were read"))
    shown = " ".join(plan("smollm2", "--device", "iphone-16").stdout.split())
    for words in ("for iphone-16", "conv1x1", "NE07", "fused_sdpa", "NE09", "prefill_length 32", "NE21c", "split8"):
        assert words in shown
    rules = plan("smollm2", "-d", "iphone-16", "--rules").stdout
    assert all_rules()["NE21c"].statement in rules
    assert "confidence: medium" in rules


def test_json(llama):
    found = as_json(llama, "-d", "iphone-16", "--rules")
    (only,) = found["plans"]
    roles = {choice["role"]: choice for choice in only["choices"]}
    assert (found["model"], only["devices"], only["format"]) == ("llama-8b", ["iphone-16"], "coreml")
    assert int(roles["chunks"]["value"]) > 1
    told = {rule["id"] for rule in found["rules"]}
    named = {i for c in only["choices"] for told in (c, *c["rejected"]) for i in told["source"].split(", ")}
    assert told == named <= set(all_rules())
    assert as_json(llama / "config.json", "-d", "iphone-16")["plans"] == found["plans"]


def test_devices_whose_plans_are_equal_are_shown_together():
    found = as_json("smollm2", "-d", "all")["plans"]
    devices = [name for each in found for name in each["devices"]]
    assert sorted(devices) == sorted(profile.name for profile in expand(["all"]))
    assert len(found) < len(devices) / 3
    assert "one artifact for" in plan("smollm2", "-d", "ios").stdout


def test_choices_that_are_settled():
    found = as_json(
        "smollm2", "-d", "iphone-16", "--set", "linear=linear", "--set", "lm_head=split16", "--context", 256
    )
    values = {choice["role"]: choice["value"] for choice in found["plans"][0]["choices"]}
    assert (values["linear"], values["layout"], values["context_length"]) == ("linear", "plain", "256")
    reasons = {choice["role"]: choice["reason"] for choice in found["plans"][0]["choices"]}
    assert all(reasons[role].startswith("asked for") for role in ("linear", "lm_head", "context_length"))
    assert as_json("smollm2", "-d", "pixel-9", "--effort", "low")["plans"][0]["choices"][2]["value"] == "int8"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-d", "pixel-9", "--set", "linear=conv1x1"), "rule CH21"),
        (("-d", "iphone-16", "--set", "attention=fused_sdpa"), "rule NE09"),
        (("-d", "iphone-16", "--set", "colour=red"), "lm_head"),
        (("-d", "iphone-16", "--set", "linear=conv3x3"), "conv1x1, linear"),
        (("-d", "iphone-16", "--set", "linear"), "ROLE=VALUE"),
        (("-d", "nokia-3310"), "nokia-3310"),
        (("-d", "pixel-9", "--effort", "heroic"), "low, normal, high"),
        (("-d", "pixel-9", "--context", "99999"), "16 to 8192"),
    ],
)
def test_refusals_are_one_json_document_that_says_what_would_do(arguments, says):
    found = as_json("smollm2", *arguments, code=2)
    assert set(found) >= {"error", "what", "got"}
    assert says in json.dumps(found)
