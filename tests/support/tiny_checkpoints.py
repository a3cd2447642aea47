"""Tiny Llama checkpoints on disk, as others write them: folders by transformers, GGUF files by gguf-py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM

from satchel.export.families.base import DecoderConfig
from satchel.export.families.llama import GGUF_TENSORS, TENSORS

VOCAB = 320
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|bos|>", "<|start|>", "<|end|>")
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġ", "Ġ")]


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE with three special tokens (ids 0 to 2) and six merges: 265 ids."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def save_tokenizer(folder: Path, **config: object) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    values = {"bos_token": "<|bos|>", "eos_token": "<|bos|>", "chat_template": CHAT_TEMPLATE, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def gguf_order(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q_proj and k_proj, by its own formula."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def byte_level(writer: gguf.GGUFWriter) -> None:
    """The tokenizer of tiny_tokenizer."""
    tokenizer = tiny_tokenizer()
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    writer.add_token_merges([" ".join(m) for m in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def llama3(writer: gguf.GGUFWriter) -> None:
    """Byte-level as Llama 3's: digits by threes, a word that no merges lead to, bos in front, no unknown token."""
    tokens = [*(t for t, _ in sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])), "hello!!"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    writer.add_token_merges([" ".join(m) for m in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)


def sentencepiece(writer: gguf.GGUFWriter) -> None:
    """As Llama 2's: scores instead of merges, bytes for what is unknown."""
    pieces = ["h", "e", "l", "o", "w", "r", "d", "he", "ll", "hell", "hello", "lo", "or", "1", "2"]
    words = ["▁", *pieces, "▁w", "▁wo", "▁wor", "▁world", "▁▁", "▁h", "▁hello", "▁1"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", "</s>", *bytes_, *words])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(words)])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def save_gguf(
    path: Path,
    model: LlamaForCausalLM,
    config: DecoderConfig,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    tokenizer: Callable[[gguf.GGUFWriter], None] | None = byte_level,
    metadata: dict[str, object] | None = None,
    extra: dict[str, np.ndarray] | None = None,
    kinds: dict[str, gguf.GGMLQuantizationType] | None = None,
) -> Path:
    """Writes a GGUF file as llama.cpp's conversion does: matrices in `kind`, norms in F32, q and k reordered.

    `kinds` names others for some matrices, such as {"q_proj": ..., "embed_tokens": ...}.
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position)
    writer.add_block_count(config.layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(model.config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_license("apache-2.0")
    writer.add_author("nobody")
    for key, value in (metadata or {}).items():
        writer.add_float32(key, value) if isinstance(value, float) else (
            writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
        )
    if tokenizer is not None:
        tokenizer(writer)
    state = model.state_dict()
    names = {TENSORS[k]: v for k, v in GGUF_TENSORS.items()}
    for layer in [None, *range(config.layers)]:
        for theirs, ours in names.items():
            if ("{i}" in theirs) != (layer is not None) or (config.tied_embeddings and theirs == "lm_head.weight"):
                continue
            values = state[theirs.format(i=layer)].float().numpy()
            heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(theirs.split(".")[-2])
            values = np.ascontiguousarray(gguf_order(values, heads) if heads else values)
            own = (kinds or {}).get(theirs.split(".")[-2], kind)
            stored = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else own
            writer.add_tensor(ours.format(i=layer), gguf.quants.quantize(values, stored), raw_dtype=stored)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
