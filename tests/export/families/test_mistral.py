"""Mistral: a window over every layer, or none; heads of another width than the model's share of one."""

import onnx_models
from coreml_caller import INFO
from family_runner import Case, check, in_every_op_set, make

from satchel.export.formats import onnx

CASES = {
    "window, wide heads": Case({"model_type": "mistral", "sliding_window": 9, "head_dim": 32}),
    "window of one prefill call": Case({"model_type": "mistral", "sliding_window": 8, "tie_word_embeddings": True}),
    "no window": Case({"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)


def test_a_window_needs_the_onnxruntime_that_counts_it_as_transformers_does(tmp_path):
    """Where the cache lies within the window there is none."""
    for context, version in ((40, "1.24"), (9, "1.20")):
        folder = tmp_path / str(context)
        folder.mkdir()
        made = make(next(iter(CASES.values())).json(), context)
        entry = onnx.write(folder, made.weights, made.config, onnx_models.plan(context), INFO)
        assert entry.options["minimum_onnxruntime"] == version
