"""The torch op set against transformers, which knows nothing of our decoder."""

import numpy as np
import pytest
import torch
from tiny_llama import tiny_llama, weights_of
from tiny_phi import tiny_phi

from satchel.export.ops.torch import TorchDecoder
from satchel.runtime.errors import UsageError

SHAPES = {
    "grouped-query, tied": {},
    "untied, biased": {"tied": False, "bias": True},
    "multi-head": {"heads": 4, "kv_heads": 4},
    "multi-query": {"heads": 4, "kv_heads": 1},
    "head_dim not hidden / heads": {"hidden": 66, "heads": 3, "kv_heads": 1, "head_dim": 14},
}
PHIS = {
    "phi": {},
    "phi, multi-head, a quarter rotated": {"kv_heads": 4, "rotated": 0.25},
    "phi, multi-query, all rotated": {"hidden": 72, "heads": 3, "kv_heads": 1, "rotated": 1.0},
}
MODELS = [(tiny_llama, s) for s in SHAPES.values()] + [(tiny_phi, s) for s in PHIS.values()]
IDS = [1, 17, 200, 3, 3, 91, 54, 8, 120]


def expected(reference, ids):
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize(("tiny", "shape"), MODELS, ids=[*SHAPES, *PHIS])
def test_logits_prefill_and_decode_agree_with_transformers(tiny, shape):
    reference, config = tiny(**shape)
    model = TorchDecoder(config, weights_of(reference, config))
    want = expected(reference, IDS)
    np.testing.assert_allclose(model.logits(IDS), want, atol=1e-4)
    np.testing.assert_allclose(model.prefill(IDS[:4]), want[3], atol=1e-4)
    np.testing.assert_allclose(model.prefill(IDS[4:6]), want[5], atol=1e-4)
    for i, token in enumerate(IDS[6:], start=6):
        np.testing.assert_allclose(model.step(token), want[i], atol=1e-4)
    model.reset()
    np.testing.assert_allclose(model.step(IDS[0]), want[0], atol=1e-4)


def test_gelu_is_the_tanh_form():
    reference, config = tiny_llama()
    for layer in reference.model.layers:
        layer.mlp.act_fn = torch.nn.GELU(approximate="tanh")
    config = type(config)(**{**config.__dict__, "activation": "gelu_tanh"})
    model = TorchDecoder(config, weights_of(reference, config))
    np.testing.assert_allclose(model.logits(IDS), expected(reference, IDS), atol=1e-4)


@pytest.mark.parametrize("tiny", [tiny_llama, tiny_phi])
def test_on_linear_sees_the_input_of_every_linear(tiny):
    reference, config = tiny()
    weights = weights_of(reference, config)
    seen = {}
    model = TorchDecoder(config, weights, on_linear=lambda name, x: seen.update({name: x}), keep=False)
    logits = model.logits(IDS)
    linears = [name for name in config.matrix_shapes() if name not in ("embed_tokens", "lm_head")]
    assert list(seen) == [*linears, "lm_head"]
    for name in linears:
        assert seen[name].shape == (1, len(IDS), config.matrix_shapes()[name][1])
    matrix = weights.matrix("embed_tokens" if config.tied_embeddings else "lm_head").dequantize()
    bias = weights.vector("lm_head.bias") if config.head_bias else 0
    np.testing.assert_allclose(seen["lm_head"][0].numpy() @ matrix.T + bias, logits, atol=1e-4)


def test_an_empty_sequence_is_refused():
    reference, config = tiny_llama()
    with pytest.raises(UsageError, match="one token at least"):
        TorchDecoder(config, weights_of(reference, config)).prefill([])
