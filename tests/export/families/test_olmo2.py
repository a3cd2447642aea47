"""OLMo 2: norms behind attention and MLP, and over all heads of queries and of keys."""

from family_runner import Case, check, in_every_op_set

CASES = {
    "grouped, biases, tied": Case({"model_type": "olmo2", "attention_bias": True, "tie_word_embeddings": True}),
    "as it is published": Case({"model_type": "olmo2", "num_key_value_heads": 4}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
