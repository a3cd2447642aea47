"""Mistral: a window over every layer, or none; heads of another width than the model's share of one."""

from family_runner import Case, check, in_every_op_set

CASES = {
    "window, wide heads": Case({"model_type": "mistral", "sliding_window": 9, "head_dim": 16}),
    "window of one prefill call": Case({"model_type": "mistral", "sliding_window": 8, "tie_word_embeddings": True}),
    "no window": Case({"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
