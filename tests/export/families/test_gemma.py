"""Gemma 1, 2 and 3: scaled embeddings, gains less 1, capped scores and logits, layers of two kinds."""

from family_runner import Case, check, in_every_op_set

GEMMA2 = {"model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 6}
GEMMA3 = {"model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 6}
ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
CASES = {
    "2: windows, caps, biases": Case(
        GEMMA2 | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "attention_bias": True}
    ),
    "3: two ropes, norms of heads": Case(
        GEMMA3 | {"num_hidden_layers": 3, "sliding_window_pattern": 2, "rope_parameters": ROPES,
                  "final_logit_softcapping": 5.0, "rms_norm_eps": 1e-3}
    ),
    "1": Case({"model_type": "gemma", "head_dim": 16, "num_key_value_heads": 1}),
    "1, untied, wide heads": Case({"model_type": "gemma", "head_dim": 32, "num_key_value_heads": 4,
                                   "tie_word_embeddings": False}),
    "2 without caps": Case(GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "2, all layers with a window": Case(GEMMA2 | {"layer_types": ["sliding_attention"] * 2}),
    "3, one kind of layer": Case(GEMMA3 | {"layer_types": ["full_attention"] * 2}),
}  # fmt: skip


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
