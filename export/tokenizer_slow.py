"""tokenizer.json of tokenizers that are stored in other forms: SentencePiece models and tiktoken's ranks.

Both are read as data: no code of a checkpoint is run, nor that of its tokenizer. A SentencePiece model keeps what the
original does with spaces: its prefix also before text that begins with a space, where transformers' conversion puts
none. (vocab.json with merges.txt is left to transformers: see tokenizer_files.py.)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from satchel.runtime.errors import TokenizerError

SPACE = "▁"
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6
"""Kinds of SentencePiece's pieces that are not plain text."""
UNIGRAM, BPE = 1, 2

CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"cl100k_base.tiktoken": CL100K, "qwen.tiktoken": QWEN}
"""File of ranks -> how text is split before merges."""
NEVER_SAID = "<|dummy_id_{}|>"
PHI3_SMALL = {
    **{"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260},
    **{"<|system|>": 100261, "<|user|>": 100262, "<|assistant|>": 100263, "<|end|>": 100266, "<|endofprompt|>": 100276},
    **{NEVER_SAID.format(i): n for i, n in enumerate([100264, 100265, 100256, *range(100267, 100276)])},
    **{NEVER_SAID.format(i): 100265 + i for i in range(12, 87)},
}
"""Control tokens of Phi-3-small, which its files do not list."""


def from_sentencepiece(path: Path, added: Mapping[str, int]) -> dict[str, Any]:
    """A SentencePiece model, BPE or unigram -> content of tokenizer.json.

    Args:
        path: tokenizer.model.
        added: further control tokens of the checkpoint -> their ids.

    Raises:
        TokenizerError: it is no such model, or of another kind.
    """
    from transformers.utils import sentencepiece_model_pb2_new as proto

    try:
        model = proto.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's, which it does not type
        raise TokenizerError(f"{path.name} is not a SentencePiece model", got=error) from None
    kind, pieces = model.trainer_spec.model_type, model.pieces
    if kind not in (UNIGRAM, BPE) or not pieces:
        raise TokenizerError("the SentencePiece model is of a kind that is not supported", got=kind, wanted="BPE")
    # A symbol with a plain space can never occur: text has none when symbols are looked for.
    named = [(i, p) for i, p in enumerate(pieces) if p.type in (CONTROL, USER_DEFINED) and " " not in p.piece]
    special = {p.piece: (i, p.type == CONTROL) for i, p in named}
    special |= {token: (i, True) for token, i in added.items() if i >= len(pieces) or pieces[i].piece == token}
    unknown = next((i for i, p in enumerate(pieces) if p.type == UNKNOWN), None)
    if unknown is not None:
        special[pieces[unknown].piece] = (unknown, True)
    bytes_ = any(p.type == BYTE for p in pieces)
    written = _unigram(pieces, unknown, bytes_) if kind == UNIGRAM else _bpe(pieces, unknown, bytes_)
    norm = model.normalizer_spec
    if norm.add_dummy_prefix and any(SPACE in token for token in special):
        raise TokenizerError("symbols with spaces, and a prefix too, are not supported", got=path.name)
    return _spec(written, special) | {"normalizer": _normalizer(norm), "decoder": _decoder(norm.add_dummy_prefix)}


def _bpe(pieces: Any, unknown: int | None, bytes_: bool) -> dict[str, Any]:
    """Two pieces are merged where their sum is one, the best first: scores fall with each merge."""
    vocab = {p.piece: i for i, p in enumerate(pieces)}
    score = {p.piece: p.score for p in pieces if p.type not in (UNKNOWN, CONTROL, BYTE)}
    merges = []
    for piece in score:
        parts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        found = [(a, b) for a, b in parts if a in score and b in score]
        merges += [(-score[piece], vocab[a], vocab[b], a, b) for a, b in found]
    pairs = [[a, b] for *_, a, b in sorted(merges)]
    return {
        "type": "BPE", "vocab": vocab, "merges": pairs, "fuse_unk": True, "byte_fallback": bytes_,
        "unk_token": None if unknown is None else pieces[unknown].piece,
    }  # fmt: skip


def _unigram(pieces: Any, unknown: int | None, bytes_: bool) -> dict[str, Any]:
    """User-defined pieces are cut out before, as added tokens, so that their score does not matter."""
    vocab = [[p.piece, float(p.score)] for p in pieces]
    return {"type": "Unigram", "vocab": vocab, "unk_id": unknown, "byte_fallback": bytes_}


def _normalizer(spec: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _decoder(prefix: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {"type": "Sequence", "decoders": [*steps, *strip]}


def from_tiktoken(path: Path, added: Mapping[str, int]) -> dict[str, Any]:
    """tiktoken's file of ranks: a token in base64 and its rank on each line -> content of tokenizer.json.

    Args:
        path: the file, whose name says how text is split.
        added: control tokens -> their ids; those of Phi-3-small where there are none.

    Raises:
        TokenizerError: it is no such file, or one whose splitting is not known.
    """
    if path.name not in PATTERNS:
        raise TokenizerError(
            "it is not known how this tokenizer splits text",
            got=path.name, wanted=f"one of {', '.join(PATTERNS)}", hint="add tokenizer.json to the checkpoint",
        )  # fmt: skip
    ranks = _ranks(path)
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    merges = []
    for token, rank in ranks.items():
        parts = ((token[:i], token[i:]) for i in range(1, len(token)))
        found = sorted((ranks[a], ranks[b], a, b) for a, b in parts if a in ranks and b in ranks)
        merges += [(rank, [spelled(a), spelled(b)]) for _, _, a, b in found]
    merges.sort(key=lambda merge: merge[0])
    model = {
        "type": "BPE", "vocab": {spelled(t): rank for t, rank in ranks.items()}, "merges": [m for _, m in merges],
        "ignore_merges": True, "fuse_unk": False, "byte_fallback": False,
    }  # fmt: skip
    special = {token: (i, True) for token, i in (added or PHI3_SMALL).items()}
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[path.name]}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _spec(model, special) | {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "decoder": level
    }  # fmt: skip


def _ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        found = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise TokenizerError(f"{path.name} is not tiktoken's list of ranks", got=error) from None
    if not found or len(set(found.values())) != len(found) or min(found.values()) < 0:
        raise TokenizerError(f"{path.name} is not tiktoken's list of ranks", got=f"{len(found)} tokens")
    return found


def _byte_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte: itself where it can be seen, else one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in seen]
    return {b: chr(b) for b in seen} | {b: chr(0x100 + i) for i, b in enumerate(hidden)}


def _spec(model: dict[str, Any], special: Mapping[str, tuple[int, bool]]) -> dict[str, Any]:
    _place(model, sorted((i, token) for token, (i, _) in special.items()))
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "model": model,
        "added_tokens": [_added(token, i, control) for token, (i, control) in _by_id(special)],
    }  # fmt: skip


def _place(model: dict[str, Any], added: list[tuple[int, str]]) -> None:
    """Tokens beyond the vocabulary: the library numbers them one after the other, whatever is stated.

    Where their ids have gaps they become entries of the vocabulary, which no merge leads to.
    """
    vocab = model["vocab"]
    known = set(vocab) if isinstance(vocab, dict) else {token for token, _ in vocab}
    beyond = [(i, token) for i, token in added if token not in known]
    if [i for i, _ in beyond] == list(range(len(vocab), len(vocab) + len(beyond))):
        return
    taken = set(vocab.values()) if isinstance(vocab, dict) else set(range(len(vocab)))
    if not isinstance(vocab, dict) or taken & {i for i, _ in beyond}:
        raise TokenizerError("the ids of added tokens do not fit the vocabulary", got=beyond[:4])
    vocab.update({token: i for i, token in beyond})


def _by_id(special: Mapping[str, tuple[int, bool]]) -> Iterable[tuple[str, tuple[int, bool]]]:
    return sorted(special.items(), key=lambda item: item[1][0])


def _added(token: str, i: int, control: bool) -> dict[str, Any]:
    """Runs of SentencePiece's spaces are looked for where spaces have become such."""
    return {
        "id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": SPACE in token,
        "special": control,
    }  # fmt: skip
