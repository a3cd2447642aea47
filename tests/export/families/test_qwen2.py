"""Qwen 2 and 2.5: biases of q, k and v; windows over some layers, or switched off."""

from family_runner import Case, check, in_every_op_set

QWEN = {"model_type": "qwen2"}
WINDOWS = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "num_hidden_layers": 3}
CASES = {
    "windows over later layers, tied": Case(QWEN | WINDOWS | {"tie_word_embeddings": True}),
    "windows as layer_types has them": Case(
        QWEN | WINDOWS | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    ),
    "a window that is switched off": Case(QWEN | {"sliding_window": 6, "num_key_value_heads": 4}),
    "yarn": Case(
        QWEN
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        }
    ),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
