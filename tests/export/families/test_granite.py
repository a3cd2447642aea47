"""Granite: multipliers of embedding, residuals, scores and logits, on and off."""

from family_runner import Case, check, in_every_op_set

GRANITE = {"model_type": "granite", "attention_multiplier": 0.3}
MULTIPLIERS = {"embedding_multiplier": 3.0, "residual_multiplier": 0.22, "logits_scaling": 0.7}
CASES = {
    "multipliers, biases, tied": Case(
        GRANITE | MULTIPLIERS | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    ),
    "a Llama but for the scale of scores": Case(GRANITE | {"num_key_value_heads": 4}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
