"""Small tokenizers of the kinds that models have, trained here: byte-level with several regexes, SentencePiece's."""

from __future__ import annotations

import json
from collections.abc import Callable

from hard_texts import hard_texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("<|bos|>", "<|start|>", "<|end|>")
PIECE_SPECIAL = ("<unk>", "<s>", "</s>", "<|end|>")
BYTES = [f"<0x{value:02X}>" for value in range(256)]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(
    splits: list[pre_tokenizers.PreTokenizer], own_regex: bool = False, whole_words: bool = False
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole_words))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(hard_texts(), trainer)
    return tokenizer


def gpt2() -> Tokenizer:
    """Byte-level with its own regex, digits apart; as SmolLM2's."""
    return _byte_level([pre_tokenizers.Digits(individual_digits=True)], own_regex=True)


def words() -> Tokenizer:
    """As Llama 3's: digits by threes, whole words without merges, two added tokens that are not special."""
    tokenizer = _byte_level([pre_tokenizers.Split(Regex(WORDS), "isolated")], whole_words=True)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", lstrip=True, rstrip=True)])
    return tokenizer


def cased() -> Tokenizer:
    """NFC, then words by case; as of later byte-level models."""
    tokenizer = _byte_level([pre_tokenizers.Split(Regex(CASED), "isolated")])
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pieces(tokenizer: Tokenizer) -> Tokenizer:
    """SentencePiece's BPE with bytes for what is unknown."""
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*PIECE_SPECIAL, *BYTES], show_progress=False,
                                  limit_alphabet=80)  # fmt: skip
    tokenizer.train_from_iterator(hard_texts(), trainer)
    # The trainer marked the bytes as special; in models they are ordinary pieces.
    values = tokenizer.get_vocab()
    merges = [(left, right) for left, right in _merges(tokenizer)]
    fresh = Tokenizer(models.BPE(vocab=values, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    fresh.normalizer, fresh.decoder = tokenizer.normalizer, tokenizer.decoder
    if tokenizer.pre_tokenizer is not None:
        fresh.pre_tokenizer = tokenizer.pre_tokenizer
    fresh.add_special_tokens(list(PIECE_SPECIAL))
    return fresh


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    found: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return found


def _piece_decoder(strip: bool = True) -> decoders.Decoder:
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if strip else parts)


def llama2() -> Tokenizer:
    """A space in front by the normalizer; as Llama 2's and TinyLlama's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = _piece_decoder()
    return _pieces(tokenizer)


def metaspace() -> Tokenizer:
    """A space in front of the first word only, by the pre-tokenizer; as Mistral's later ones."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tokenizer.decoder = _piece_decoder()
    return _pieces(tokenizer)


def gemma() -> Tokenizer:
    """No space in front; spaces become pieces by the normalizer, and words are split after it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = _piece_decoder(strip=False)
    return _pieces(tokenizer)


def unigram() -> Tokenizer:
    """SentencePiece's other model, with bytes; NFKC, a space in front of each word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=list(PIECE_SPECIAL), unk_token="<unk>",
                                      show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator([t for t in hard_texts() if t.isascii()], trainer)
    scores = _scores(tokenizer)
    fresh = Tokenizer(
        models.Unigram([*scores, *((b, -30.0 - i) for i, b in enumerate(BYTES))], unk_id=0, byte_fallback=True)
    )
    fresh.normalizer, fresh.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    fresh.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", prepend_scheme="always")])
    fresh.add_special_tokens(list(PIECE_SPECIAL))
    return fresh


def _scores(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    # Rare pieces have equal scores, and no rule says which of two equal cuts is taken: here no two are equal.
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    scores = [(piece, round(score - 1.7e-3 * i**1.1, 9)) for i, (piece, score) in enumerate(pieces)]
    return [(scores[0][0], -50.0), *scores[1:]]  # the first is <unk>


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": gpt2, "words": words, "cased": cased, "llama2": llama2, "metaspace": metaspace, "gemma": gemma,
    "unigram": unigram,
}  # fmt: skip
