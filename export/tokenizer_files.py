"""Where the parts of a tokenizer lie in a checkpoint: a folder's files, or a GGUF file's metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satchel.export.checkpoint import Checkpoint
from satchel.export.checkpoint.base import read_json
from satchel.export.checkpoint.gguf_file import GgufCheckpoint
from satchel.export.huggingface import first_line, quiet
from satchel.export.tokenizer_slow import from_sentencepiece, from_tiktoken
from satchel.runtime.errors import CheckpointError, TokenizerError

SENTENCEPIECE = ("tokenizer.model", "spiece.model")
SLOW_FILES = ("vocab.json", "tekken.json")
BEGIN_WITH_BOS = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GemmaTokenizer")
"""Classes that put bos in front unless they are told otherwise."""
SENTENCEPIECE_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
"""What a SentencePiece model's special tokens are called, unless a checkpoint says."""
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
GGUF_IDS = ("bos", "eos", "unknown", "padding")  # in the same order

DIGITS_APART = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
PRE_TOKENIZERS: dict[str, dict[str, Any] | None] = {
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), DIGITS_APART),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling")),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "smaug-bpe", "dbrx", "lfm2")),
    **dict.fromkeys(("tekken", "qwen2", "deepseek-r1-qwen", "megrez", "gpt-4o", "llama4")),
}
"""tokenizer.ggml.pre -> the splitting that transformers' conversion lacks; None where it is right as it is."""

WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral")
"""Those whose vocabularies hold words that no merges lead to (ignore_merges), and which begin with bos."""


@dataclass(frozen=True)
class TokenizerParts:
    """A tokenizer as found.

    Attributes:
        spec: content of tokenizer.json, without truncation and padding.
        special_tokens: name ("bos_token", ...) -> token.
        chat_template: Jinja, or None.
        add_bos: whether a plain prompt begins with bos; None where only the post-processor says it.
    """

    spec: dict[str, Any]
    special_tokens: dict[str, str]
    chat_template: str | None
    add_bos: bool | None


def read_parts(checkpoint: Checkpoint) -> TokenizerParts:
    """Finds and converts.

    Raises:
        TokenizerError: there is no tokenizer, or it cannot be read or converted.
    """
    parts = _from_gguf(checkpoint) if isinstance(checkpoint, GgufCheckpoint) else _from_folder(checkpoint.path)
    if not isinstance(parts.spec.get("model"), dict):
        raise TokenizerError("tokenizer.json has no model", wanted="a file of Hugging Face tokenizers")
    return parts


def _from_folder(folder: Path) -> TokenizerParts:
    config = _optional_json(folder / "tokenizer_config.json")
    names = _optional_json(folder / "special_tokens_map.json") | config
    found = {n: t for n in SPECIAL_TOKENS if (t := _content(names.get(n)))}
    pieces = next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    add_bos = config.get("add_bos_token")
    if (folder / "tokenizer.json").is_file():
        spec = _optional_json(folder / "tokenizer.json")
    elif pieces:
        spec, found = from_sentencepiece(pieces, _added_tokens(folder, config)), SENTENCEPIECE_NAMES | found
        add_bos = config.get("tokenizer_class") in BEGIN_WITH_BOS if add_bos is None else add_bos
    else:
        spec = _slow(folder, config)
    return TokenizerParts(
        _unclipped(spec), found, _folder_template(folder, config), add_bos if isinstance(add_bos, bool) else None
    )


def _slow(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json of a folder that has ranks of tiktoken, or a form that transformers converts."""
    ranks = sorted(folder.glob("*.tiktoken"))
    if ranks:
        return from_tiktoken(ranks[0], _added_tokens(folder, config))
    if any((folder / name).is_file() for name in SLOW_FILES):
        return _convert(folder)
    raise _missing(folder)


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Tokens that a checkpoint adds to its vocabulary -> ids."""
    found: dict[Any, Any] = dict(_optional_json(folder / "added_tokens.json"))
    listed = config.get("added_tokens_decoder")
    found |= {_content(t): i for i, t in (listed.items() if isinstance(listed, dict) else ())}
    try:
        return {str(token): int(i) for token, i in found.items() if token}
    except (TypeError, ValueError) as error:
        raise TokenizerError("the checkpoint's added tokens are not numbered", got=error) from None


def _from_gguf(checkpoint: GgufCheckpoint) -> TokenizerParts:
    metadata = checkpoint.metadata
    tokens, kind = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.model")
    if not isinstance(tokens, list) or kind is None:
        raise _missing(checkpoint.path)
    ids = {n: metadata.get(f"tokenizer.ggml.{key}_token_id") for n, key in zip(SPECIAL_TOKENS, GGUF_IDS, strict=True)}
    found = {n: str(tokens[i]) for n, i in ids.items() if isinstance(i, int) and 0 <= i < len(tokens)}
    pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
    spec = _only(_convert(checkpoint.path), len(tokens))
    spec = _with_splitting(spec, pre) if kind == "gpt2" else spec
    spec = _with_spaces(spec, bool(metadata.get("tokenizer.ggml.add_space_prefix", True))) if kind == "llama" else spec
    template = metadata.get("tokenizer.chat_template")
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or pre in WHOLE_WORDS)
    return TokenizerParts(_unclipped(spec), found, template if isinstance(template, str) else None, bool(add_bos))


def _with_splitting(spec: dict[str, Any], pre: Any) -> dict[str, Any]:
    """Splits text before the merges as the vocabulary was trained, which transformers does for some names only."""
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            "the GGUF file's way of splitting text is not known",
            got=f"tokenizer.ggml.pre = {pre!r}",
            wanted=f"one of {', '.join(sorted(PRE_TOKENIZERS))}",
            hint="pass the original folder, which has tokenizer.json, or --no-tokenizer",
        )
    model = spec["model"] | ({"ignore_merges": True} if pre in WHOLE_WORDS else {})
    return spec | {"model": model, "pre_tokenizer": PRE_TOKENIZERS[pre] or spec["pre_tokenizer"]}


def _with_spaces(spec: dict[str, Any], prefix: bool) -> dict[str, Any]:
    """SentencePiece's spaces as llama.cpp and the original tokenizers of Llama 2 have them.

    transformers' conversion adds no prefix where text begins with a space, or after a control token.
    """
    prepend = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return spec | {"normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]}, "pre_tokenizer": None}


def _only(spec: dict[str, Any], count: int) -> dict[str, Any]:
    """Without the special tokens that transformers' conversion adds beyond those of the file."""
    return spec | {"added_tokens": [t for t in spec.get("added_tokens", []) if t["id"] < count]}


def _convert(path: Path) -> dict[str, Any]:
    """tokenizer.json of a tokenizer that is stored in another form, by transformers."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with quiet() as transformers:
        try:
            if path.is_file():  # not AutoTokenizer, which first parses the header for a configuration, in 4 s
                fast = transformers.PreTrainedTokenizerFast
                tokenizer = fast.from_pretrained(str(path.parent), gguf_file=path.name, **options)
            else:
                tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **options)
            found = json.loads(tokenizer.backend_tokenizer.to_str())
        except Exception as error:
            raise TokenizerError(
                "the tokenizer cannot be converted to tokenizer.json",
                got=first_line(error),
                hint="convert it on a machine where transformers can load it: tokenizer.save_pretrained(folder)",
            ) from error
    return dict(found)


def _unclipped(spec: dict[str, Any]) -> dict[str, Any]:
    """Without the truncation and padding that a training run may have left behind."""
    return spec | {"truncation": None, "padding": None}


def _folder_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8", errors="replace")
    given = config.get("chat_template") or _optional_json(folder / "chat_template.json").get("chat_template")
    if isinstance(given, list):  # several, by name
        given = {t.get("name"): t.get("template") for t in given if isinstance(t, dict)}.get("default")
    return given if isinstance(given, str) and given else None


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except CheckpointError as error:
        raise TokenizerError(error.what, got=error.got, wanted=error.wanted) from None


def _content(token: Any) -> str | None:
    """A special token's text; older files have an object with settings."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else None


def _missing(path: Path) -> TokenizerError:
    return TokenizerError(
        "the checkpoint has no tokenizer",
        got=path.name,
        wanted="tokenizer.json, or a form that transformers can convert",
        hint="add it, or pass --no-tokenizer to make a bundle that takes token ids",
    )
