"""Llama: grouped heads, biases, tied and untied heads, and every scaling of its rotary embedding."""

from family_runner import YARN, Case, check, in_every_op_set

LLAMA = {"model_type": "llama"}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CASES = {
    "3.x: llama3 rope, biases, wide heads, tied": Case(
        LLAMA | {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True, "head_dim": 32,
                 "tie_word_embeddings": True}
    ),
    "1: as many heads of keys": Case(LLAMA | {"num_key_value_heads": 4}),
    "yarn": Case(LLAMA | {"rope_parameters": YARN}),
    "linear rope": Case(LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "SmolLM2: 3 heads to 1": Case(LLAMA | {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1}),
}  # fmt: skip


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
