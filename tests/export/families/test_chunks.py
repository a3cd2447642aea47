"""Families whose layers differ over several Core ML packages: each has the windows, ropes, heads of its own layers."""

import json

import numpy as np
import pytest
from coreml_caller import INFO, coreml_plan
from family_runner import PREFILL, TOLERANCE, make

from satchel.export.formats import coreml
from satchel.runtime.backends.coreml import CoremlBackend

ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
MODELS = {
    "two ropes, windows and caps": {
        "model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 6,
        "num_hidden_layers": 4, "sliding_window_pattern": 2, "rope_parameters": ROPES, "final_logit_softcapping": 5.0,
    },
    "heads and widths by layer": {"model_type": "openelm"},
    "blocks by layer": {"model_type": "phi3small", "dummy_token_indices": None},
    "windows where nothing rotates": {
        "model_type": "smollm3", "no_rope_layers": [0, 1, 0], "num_hidden_layers": 3, "use_sliding_window": True,
        "sliding_window": 5,
    },
    "long factors and a window": {
        "model_type": "phi3", "num_hidden_layers": 3, "sliding_window": 12, "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8,
            "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0],
        },
    },
}  # fmt: skip
FORMS = {"engine": {}, "plain": {"layout": "plain", "attention": "fused_sdpa"}}


@pytest.mark.parametrize("form", ["engine", pytest.param("plain", marks=pytest.mark.families)])
@pytest.mark.parametrize("name", MODELS)
def test_the_chain_says_what_transformers_says(tmp_path, name, form):

    made = make(json.dumps(MODELS[name], sort_keys=True), 40)
    ids, chunks = made.ids[0].tolist(), 3 if form == "engine" else 2
    plan = coreml_plan(context=40, prefill=PREFILL, chunks=str(chunks), **FORMS[form])
    entry = coreml.write(tmp_path, made.weights, made.config, plan, INFO)
    assert sum(1 for chunk in entry.chunks if chunk.layers) == chunks
    backend = CoremlBackend(tmp_path, entry, precision="fp32")
    for prompt in (5, 21):  # the second behind a reset, its last call padded
        backend.reset()
        np.testing.assert_allclose(backend.prefill(ids[:prompt]), made.logits[0, prompt - 1], atol=TOLERANCE, rtol=0)
    for place in range(21, len(ids)):
        np.testing.assert_allclose(backend.step(ids[place]), made.logits[0, place], atol=TOLERANCE, rtol=0)
