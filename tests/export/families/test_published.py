"""Configurations of published models are taken whole, and give the numbers of parameters that their pages state."""

import json

import numpy as np
import pytest

from satchel.export.families.registry import FAMILIES, family_of
from satchel.runtime.errors import CheckpointError

BOOKKEEPING = {
    "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": True, "initializer_range": 0.02,
    "attention_dropout": 0.0,
}  # fmt: skip


def sizes(hidden, intermediate, layers, heads, kv_heads, vocab, positions):
    return {
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": positions,
    }  # fmt: skip


CODE = {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3"}}
PHI3 = {
    "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "embd_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
    "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False, "original_max_position_embeddings": 4096,
    "attention_bias": False, **CODE,
}  # fmt: skip


def longrope(count, kind="longrope"):
    return {"type": kind, "short_factor": [1.0] * count, "long_factor": [1.0 + i for i in range(count)]}


QWEN = {
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True,
    "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 21, "bos_token_id": 151643,
    "eos_token_id": 151645,
}  # fmt: skip
GEMMA = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "rms_norm_eps": 1e-6, "attention_bias": False}
GEMMA2 = {
    **GEMMA, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "cache_implementation": "hybrid", "head_dim": 256,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 256,
    "sliding_window": 4096, "rope_theta": 10000.0,
}  # fmt: skip
OPENELM = {
    "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "activation_fn_name": "swish", **CODE,
    "bos_token_id": 1, "eos_token_id": 2, "ffn_dim_divisor": 256, "ffn_with_glu": True, "max_context_length": 2048,
    "normalization_layer_name": "rms_norm", "normalize_qk_projections": True, "num_gqa_groups": 4,
    "qkv_multipliers": [0.5, 1.0], "rope_freq_constant": 10000, "rope_max_length": 4096,
    "share_input_output_layers": True, "vocab_size": 32000,
}  # fmt: skip
PUBLISHED = {
    "Phi-3-mini-4k": (
        PHI3 | sizes(3072, 8192, 32, 32, 32, 32064, 4096) | {"sliding_window": 2047}, 3_821_079_552,
    ),
    "Phi-3-mini-128k": (
        PHI3 | sizes(3072, 8192, 32, 32, 32, 32064, 131072)
        | {"sliding_window": 262144, "rope_scaling": longrope(48, "su")}, 3_821_079_552,
    ),
    "Phi-3-medium-4k": (
        PHI3 | sizes(5120, 17920, 40, 40, 10, 32064, 4096) | {"sliding_window": 2047}, 13_960_238_080,
    ),
    "Phi-4": (
        PHI3 | sizes(5120, 17920, 40, 40, 10, 100352, 16384)
        | {"rope_theta": 250000, "bos_token_id": 100257, "eos_token_id": 100257, "pad_token_id": 100257,
           "original_max_position_embeddings": 16384, "sliding_window": None}, 14_659_507_200,
    ),
    "Phi-4-mini": (
        PHI3 | sizes(3072, 8192, 32, 24, 8, 200064, 131072)
        | {"rope_scaling": longrope(48), "partial_rotary_factor": 0.75, "tie_word_embeddings": True,
           "sliding_window": 262144, "full_attn_mod": 1, "lm_head_bias": False, "mlp_bias": False,
           "interpolate_factor": 1, "bos_token_id": 199999, "eos_token_id": 199999, "pad_token_id": 199999},
        3_836_021_760,
    ),
    "Mistral-7B-v0.1": (
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
         "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
         "tie_word_embeddings": False} | sizes(4096, 14336, 32, 32, 8, 32000, 32768), 7_241_732_096,
    ),
    "TinyLlama-1.1B": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1,
         "eos_token_id": 2, "hidden_act": "silu", "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": None,
         "rope_theta": 10000.0, "tie_word_embeddings": False} | sizes(2048, 5632, 22, 32, 4, 32000, 2048),
        1_100_048_384,
    ),
    "Llama-3.2-1B": (
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "head_dim": 64,
         "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "mlp_bias": False,
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True, "pretraining_tp": 1,
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"}}
        | sizes(2048, 8192, 16, 32, 8, 128256, 131072), 1_235_814_400,
    ),
    "Qwen2.5-0.5B": (
        {**QWEN, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_mrope": False}
        | sizes(896, 4864, 24, 14, 2, 151936, 32768), 494_032_768,
    ),
    "Qwen3-0.6B": (
        {**QWEN, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128,
         "attention_bias": False, "rope_scaling": None, "sliding_window": None, "max_window_layers": 28}
        | sizes(1024, 3072, 28, 16, 8, 151936, 40960), 596_049_920,
    ),
    "SmolLM3-3B": (
        {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False,
         "bos_token_id": None, "eos_token_id": 128012, "hidden_act": "silu", "layer_types": ["full_attention"] * 36,
         "max_window_layers": 28, "mlp_bias": False, "no_rope_layer_interval": 4, "pretraining_tp": 2,
         "no_rope_layers": [1, 1, 1, 0] * 9, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 5000000.0,
         "sliding_window": None, "use_sliding_window": False} | sizes(2048, 11008, 36, 16, 4, 128256, 65536),
        3_075_098_624,
    ),
    "stablelm-2-1_6b": (
        {"model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "bos_token_id": 100257,
         "eos_token_id": 100257, "hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25,
         "rope_theta": 10000, "tie_word_embeddings": False, "use_qkv_bias": True}
        | sizes(2048, 5632, 24, 32, 32, 100352, 4096), 1_644_515_328,
    ),
    "OLMo-2-0425-1B": (
        {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "attention_bias": False,
         "eos_token_id": 100257, "hidden_act": "silu", "pad_token_id": 100277, "rms_norm_eps": 1e-6,
         "rope_scaling": None, "rope_theta": 500000, "tie_word_embeddings": False}
        | sizes(2048, 8192, 16, 16, 16, 100352, 4096), 1_484_916_736,
    ),
    "gemma-2b": (
        {**GEMMA, "model_type": "gemma", "architectures": ["GemmaForCausalLM"], "head_dim": 256, "hidden_act": "gelu",
         "hidden_activation": None, "rope_scaling": None, "rope_theta": 10000.0}
        | sizes(2048, 16384, 18, 8, 1, 256000, 8192), 2_506_172_416,
    ),
    "gemma-2-2b": (GEMMA2 | sizes(2304, 9216, 26, 8, 4, 256000, 8192), 2_614_341_888),
    "gemma-3-1b": (
        {**GEMMA, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "head_dim": 256,
         "attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None,
         "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000,
         "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6}
        | sizes(1152, 6912, 26, 4, 1, 262144, 32768), 999_885_952,
    ),
    "starcoder2-3b": (
        {"model_type": "starcoder2", "architectures": ["Starcoder2ForCausalLM"], "activation_function": "gelu",
         "attention_softmax_in_fp32": True, "bos_token_id": 0, "embedding_dropout": 0.1, "eos_token_id": 0,
         "hidden_act": "gelu_pytorch_tanh", "layer_norm_epsilon": 1e-5, "mlp_type": "default", "norm_epsilon": 1e-5,
         "norm_type": "layer_norm", "residual_dropout": 0.1, "rope_theta": 999999.4420358813, "sliding_window": 4096,
         "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True, "use_bias": True}
        | sizes(3072, 12288, 30, 24, 2, 49152, 16384), 3_030_371_328,
    ),
    "granite-3.3-2b": (
        {"model_type": "granite", "architectures": ["GraniteForCausalLM"], "attention_bias": False, "bos_token_id": 0,
         "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "eos_token_id": 0, "hidden_act": "silu",
         "logits_scaling": 8.0, "mlp_bias": False, "residual_multiplier": 0.22, "rms_norm_eps": 1e-5,
         "rope_scaling": None, "rope_theta": 10000000.0, "tie_word_embeddings": True}
        | sizes(2048, 8192, 40, 32, 8, 49159, 131072), 2_533_539_840,
    ),
    "phi-2": (
        {"model_type": "phi", "architectures": ["PhiForCausalLM"], "bos_token_id": 50256, "embd_pdrop": 0.0,
         "eos_token_id": 50256, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.4,
         "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0,
         "tie_word_embeddings": False} | sizes(2560, 10240, 32, 32, 32, 51200, 2048), 2_779_683_840,
    ),
    "Phi-3-small-8k": (
        {"model_type": "phi3small", "architectures": ["Phi3SmallForCausalLM"], **CODE, "attention_dropout_prob": 0.0,
         "blocksparse_block_size": 64, "blocksparse_homo_head_pattern": False, "blocksparse_num_local_blocks": 16,
         "blocksparse_triton_kernel_block_size": 64, "blocksparse_vert_stride": 8, "bos_token_id": 100257,
         "dense_attention_every_n_layers": 2, "dummy_token_indices": [100256, 100264, 100265, *range(100267, 100352)],
         "embedding_dropout_prob": 0.1, "eos_token_id": 100257, "ff_dim_multiplier": None, "ffn_dropout_prob": 0.1,
         "ff_intermediate_size": 14336, "gegelu_limit": 20.0, "gegelu_pad_to_256": True, "hidden_act": "gegelu",
         "layer_norm_epsilon": 1e-5, "mup_attn_multiplier": 1.0, "mup_embedding_multiplier": 10.0,
         "mup_use_scaling": True, "mup_width_multiplier": 8.0, "reorder_and_upcast_attn": False,
         "rope_embedding_base": 1000000, "rope_position_scale": 1.0, "hidden_size": 4096, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 100352, "max_position_embeddings": 8192},
        7_392_272_384 + 100_352,  # the bias of the head, which is ours
    ),
    "OpenELM-270M": (
        {**OPENELM, "head_dim": 64, "model_dim": 1280, "num_transformer_layers": 16,
         "ffn_multipliers": [0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0],
         "num_query_heads": [12] * 5 + [16] * 7 + [20] * 4, "num_kv_heads": [3] * 5 + [4] * 7 + [5] * 4}, 271_527_168,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "parameters"), PUBLISHED.values(), ids=PUBLISHED)
def test_is_taken_whole(given, parameters):
    family = family_of(given)
    config = family.configure(BOOKKEEPING | given)
    shapes = {**config.matrix_shapes(), **config.vector_shapes()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
    assert set(family.tensor_names(config)) == set(shapes)
    assert json.dumps(config.eos_token_ids)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "already quantized"),
        ({"num_local_experts": 8}, "num_local_experts=8"),
        ({"width_multiplier": 8.0}, "width_multiplier=8.0"),
        ({"architectures": ["SomethingForTokenClassification"]}, "SomethingForTokenClassification"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_what_it_does_not_know_is_named(name, change, words):
    with pytest.raises(CheckpointError, match=words):
        family_of(PUBLISHED[name][0]).configure(PUBLISHED[name][0] | change)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("Phi-3-mini-128k", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "long_factor"),
        ("Phi-3-mini-128k", {"rope_scaling": longrope(47)}, "fit the heads"),
        ("Phi-3-mini-4k", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("Phi-3-mini-4k", {"sliding_window": -1}, "sliding_window"),
        ("Phi-4-mini", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ("Phi-4-mini", {"full_attn_mod": 2}, "full_attn_mod"),
        ("Phi-4-mini", {"lm_head_bias": True}, "lm_head_bias"),
        ("Mistral-7B-v0.1", {"layer_types": ["full_attention"] * 32}, "layer_types"),
        ("Qwen2.5-0.5B", {"layer_types": ["full_attention"]}, "layer_types"),
        ("Qwen2.5-0.5B", {"layer_types": ["sliding_attention"] * 24}, "no window"),
        ("Qwen2.5-0.5B", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ("Qwen2.5-0.5B", {"use_mrope": True}, "use_mrope"),
        ("SmolLM3-3B", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("stablelm-2-1_6b", {"hidden_act": "gelu"}, "hidden_act"),
        ("OLMo-2-0425-1B", {"clip_qkv": 8.0}, "clip_qkv"),
        ("gemma-2-2b", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma-2-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma-3-1b", {"attn_logit_softcapping": 50.0}, "capped scores"),
        ("gemma-3-1b", {"rope_parameters": {"rope_theta": 1e6}}, "both kinds"),
    ],
)
def test_options_that_are_not_supported_are_named(name, change, words):
    given = PUBLISHED[name][0] | change
    with pytest.raises(CheckpointError, match=words):
        family_of(given).configure(given)


def test_an_unknown_architecture_answers_with_the_known_ones():
    with pytest.raises(CheckpointError, match="mamba") as caught:
        family_of({"model_type": "mamba"})
    assert all(name in str(caught.value) for name in FAMILIES)
    assert "CONTRIBUTING.md" in str(caught.value)
