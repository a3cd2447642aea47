"""The ExecuTorch backend: its errors, and the real model under ExecuTorch's own LLM runner."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny_llama import tiny_llama, weights_of

from satchel.devices.plan import Choice, Plan
from satchel.export.formats.executorch import write
from satchel.runtime.backends.executorch import ExecutorchBackend
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import ModelInfo

INFO = ModelInfo("tiny", "llama", "", "unknown", "", "random", 1)


def exported(folder, target="xnnpack"):
    reference, config = tiny_llama()
    plan = Plan("test", "executorch", 16, 4 * (target == "xnnpack"), (Choice("target", target, "", ""),))
    return write(folder, weights_of(reference, config, "palette"), config, plan, INFO)


@pytest.mark.parametrize("target", ["xnnpack", "coreml"])
def test_calls_that_make_no_sense_are_refused(tmp_path, target):
    backend = ExecutorchBackend(tmp_path, exported(tmp_path, target))
    backend.prefill(range(15))
    for ids, message in (([], "at least one"), ([1, 2], "at most 16"), ([256], "0 to 255"), ([-1], "0 to 255")):
        with pytest.raises(UsageError, match=message):
            backend.prefill(ids)
    assert backend.position == 15
    backend.step(1)
    with pytest.raises(UsageError, match="at most 16"):
        backend.step(1)


def test_two_backends_have_a_cache_each(tmp_path):
    entry = exported(tmp_path)
    first, second = ExecutorchBackend(tmp_path, entry), ExecutorchBackend(tmp_path, entry)
    alone = first.prefill([1, 2, 3])
    second.prefill([9, 8, 7])
    want = first.step(4)
    first.reset()
    np.testing.assert_array_equal(first.prefill([1, 2, 3]), alone)
    np.testing.assert_array_equal(first.step(4), want)


def test_threads_cannot_change_under_a_loaded_program(tmp_path):
    entry = exported(tmp_path)
    loaded = ExecutorchBackend(tmp_path, entry)
    with pytest.raises(UsageError, match="thread pool"):
        ExecutorchBackend(tmp_path, entry, threads=7)
    assert loaded.prefill([1]).shape == (256,)


@pytest.mark.parametrize("target", ["xnnpack", "coreml"])
def test_a_file_that_is_not_whole_is_refused(tmp_path, target, capfd):
    entry = exported(tmp_path, target)
    path = tmp_path / entry.path
    whole = path.read_bytes()
    cases = {"empty": b"", "cut": whole[:-200], "header": whole[:100], "other": b"PK\3\4" * 5000, "zeros": bytes(9999)}
    cases["scrambled"] = whole[:48] + bytes(b ^ 255 for b in whole[48:4000]) + whole[4000:]
    for data in cases.values():
        path.write_bytes(data)
        with pytest.raises(FormatError, match="export"):
            ExecutorchBackend(tmp_path, entry)
    assert capfd.readouterr().err == ""


RUNNER = """
import json, sys
import executorch.kernels.quantized
from executorch.extension.llm.custom_ops import custom_ops
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
model, tokenizer, prompt = sys.argv[1:]
runner, said = TextLLMRunner(model, tokenizer), []
config = GenerationConfig(max_new_tokens=24, temperature=0.0, echo=False)
runner.generate(prompt, config, token_callback=said.append)
print(json.dumps("".join(said)))
"""


@pytest.mark.smollm2
def test_executorchs_own_runner_knows_the_capital_of_france(smollm2_bundles):
    bundle = smollm2_bundles["executorch"]
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    command = [sys.executable, "-c", RUNNER, str(bundle / "model.pte"), str(bundle / "tokenizer.json"), question]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "Paris" in answer
