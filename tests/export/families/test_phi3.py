"""Phi-3 and Phi-4: fused projections, LongRoPE on both sides of its switch, windows."""

from family_runner import Case, check, in_every_op_set

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0],
}
PHI3 = {"model_type": "phi3"}
LONG_4_MINI = {
    **{k: v[:6] if isinstance(v, list) else v for k, v in LONGROPE.items()},
    "partial_rotary_factor": 0.75,
}
CASES = {
    "4-mini: partial rotary, long, tied, window": Case(
        PHI3 | {
            "rope_parameters": LONG_4_MINI, "original_max_position_embeddings": 16, "tie_word_embeddings": True,
            "sliding_window": 12,
        }
    ),
    "mini-4k: window": Case(PHI3 | {"num_key_value_heads": 4, "sliding_window": 7}),
    "medium: grouped queries": Case(PHI3 | {"num_key_value_heads": 1}),
    "128k, short": Case(PHI3 | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}, context=16),
    "128k, long": Case(PHI3 | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}),
}  # fmt: skip


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)
