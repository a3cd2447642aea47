"""StableLM: LayerNorm, partial rotary, norms of heads by gains of their own, parallel branches."""

from family_runner import Case, check, in_every_op_set

STABLE = {"model_type": "stablelm"}
CASES = {
    "2 12B: norms of heads, parallel, biases": Case(
        STABLE | {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True}
    ),
    "2 1.6B: biases": Case(STABLE | {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "3B": Case(STABLE | {"partial_rotary_factor": 1.0, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "norms of heads, one after the other": Case(STABLE | {"qk_layernorm": True}),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
