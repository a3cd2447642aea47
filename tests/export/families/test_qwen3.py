"""Qwen 3: norms of each head's queries and keys, heads of any width, windows over some layers."""

from family_runner import Case, check, in_every_op_set

QWEN = {"model_type": "qwen3", "head_dim": 16}
WINDOWS = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "num_hidden_layers": 3}
CASES = {
    "windows, biases, tied": Case(QWEN | WINDOWS | {"attention_bias": True, "tie_word_embeddings": True}),
    "yarn, wide heads, not grouped": Case(
        QWEN
        | {
            "num_key_value_heads": 4,
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        }
    ),
    "as it is published": Case(QWEN | {"num_key_value_heads": 1, "rope_parameters": {"rope_theta": 1e6}}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
