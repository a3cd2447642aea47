"""StarCoder2: LayerNorm, an MLP without a gate, biases and a window, on and off."""

from family_runner import Case, check, in_every_op_set

STARCODER = {"model_type": "starcoder2"}
CASES = {
    "window, tied": Case(STARCODER | {"sliding_window": 9}),
    "no window, no biases, untied": Case(
        STARCODER | {"use_bias": False, "tie_word_embeddings": False, "num_key_value_heads": 4}
    ),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
