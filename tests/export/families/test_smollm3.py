"""SmolLM3: layers that do not rotate, and windows over those."""

from family_runner import YARN, Case, check, in_every_op_set

SMOL = {"model_type": "smollm3"}
CASES = {
    "windows over layers without rotary, biases": Case(
        SMOL | {"no_rope_layers": [0, 1, 0], "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 5,
                "attention_bias": True, "mlp_bias": True}
    ),
    "every second layer, untied": Case(SMOL | {"no_rope_layer_interval": 2, "tie_word_embeddings": False}),
    "yarn, all rotate, not grouped": Case(
        SMOL | {
            "no_rope_layers": [1, 1], "num_key_value_heads": 4,
            "rope_parameters": YARN,
        }
    ),
    "none rotates": Case(SMOL | {"no_rope_layers": [0, 0]}),
}  # fmt: skip


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
