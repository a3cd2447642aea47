"""The tokenizer that goes into a bundle: tokenizer.json, the names of its special tokens, the chat template, stop ids.

Nothing of a checkpoint is executed: no code of its own, and its chat template only in Jinja's sandbox.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.tokenizer_files import TokenizerParts, read_parts
from satchel.runtime import strict_json
from satchel.runtime.chat import ChatTemplate, Guard, Message, control_tokens, encode_guarded
from satchel.runtime.errors import BundleError, TokenizerError, UsageError
from satchel.runtime.manifest import FormatName, TokenRules

SENTINEL = "zebra"  # stands for an answer when a chat template is asked how it ends one

DATE = "1 Jan 2026"  # so that every export gives the same prompts

GPT2_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ByteLevel splits by when its use_regex is on."""


@dataclass(frozen=True)
class BundleTokenizer:
    """A tokenizer as a bundle holds it.

    Attributes:
        tokenizer_json: for Hugging Face tokenizers; neither truncates nor pads, and adds bos where `rules` says so.
        tokenizer_config: JSON: special tokens by name, and what onnxruntime-genai needs.
        chat_template: Jinja, or None.
        special_tokens: by name, as the template refers to them.
        rules: for the manifest.
    """

    tokenizer_json: bytes
    tokenizer_config: bytes
    chat_template: str | None
    special_tokens: dict[str, str]
    rules: TokenRules

    def files(self, format: FormatName | None = None) -> dict[str, bytes]:
        """Name in the bundle -> content.

        Args:
            format: of the bundle. For ONNX tokenizer.json is spelled so that onnxruntime-genai splits digits as well.
        """
        spec = spell_for_genai(self.tokenizer_json) if format == "onnx" else self.tokenizer_json
        found = {"tokenizer.json": spec, "tokenizer_config.json": self.tokenizer_config}
        if self.chat_template is not None:
            found["chat_template.jinja"] = self.chat_template.encode("utf-8")
        return found

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        return Tokenizer.from_str(self.tokenizer_json.decode("utf-8"))

    def encode(self, text: str) -> list[int]:
        """Ids of a plain prompt, as FORMAT.md says."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        bos = [self.rules.bos_id] if self.rules.prepend_bos and self.rules.bos_id is not None else []
        return ids if ids[:1] == bos else bos + ids

    def encode_part(self, text: str) -> list[int]:
        """Ids of a text that goes into a prompt: nothing is put in front, and control tokens count as such."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_chat(self, messages: Sequence[Message], **variables: Any) -> list[int]:
        """Ids of a conversation, up to where the assistant's answer begins.

        Args:
            messages: each with "role" and "content".
            variables: further ones of the template; templates that write a date are told the same one always.

        Raises:
            UsageError: there is no template, or it refuses the conversation.
        """
        variables = {"date_string": DATE, **variables}
        if self.chat_template is None:
            raise UsageError("the tokenizer has no chat template")
        guard = Guard.of(messages, list(control_tokens(self.tokenizer)))
        text = ChatTemplate(self.chat_template, self.special_tokens).render(guard.hide(list(messages)), **variables)
        return encode_guarded(self.tokenizer, text, guard)

    @property
    def tells_the_time(self) -> bool:
        """Whether the chat template writes today's date whatever it is told, so that no two days give the same ids."""
        template = self.chat_template or ""
        return "strftime_now" in template and "date_string" not in template

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def read_tokenizer(checkpoint: Checkpoint, config: DecoderConfig) -> BundleTokenizer:
    """The tokenizer of a checkpoint.

    Raises:
        TokenizerError: there is none, it cannot be read or converted, or it does not fit the model.
    """
    parts = read_parts(checkpoint)
    tokenizer = _load(parts.spec)
    _check_fits(tokenizer, config)
    bos = _id_of(tokenizer, parts.special_tokens.get("bos_token"), config.bos_token_id)
    adds = _adds_bos(tokenizer, bos)
    prepend = bos is not None and (adds if parts.add_bos is None else parts.add_bos)
    spec = parts.spec if prepend == adds else _with_bos(parts.spec, tokenizer, bos if prepend else None)
    found = BundleTokenizer(
        tokenizer_json=_compact(spec),
        tokenizer_config=_config_json(parts, spec, prepend),
        chat_template=parts.chat_template,
        special_tokens=parts.special_tokens,
        rules=dataclasses.replace(token_rules(checkpoint, config), bos_id=bos, prepend_bos=prepend),
    )
    ends = {_id_of(tokenizer, parts.special_tokens.get("eos_token"), None), _turn_end(found)} - {None}
    return dataclasses.replace(found, rules=_with_stops(found.rules, ends))


def retold(
    tokenizer: BundleTokenizer, spec: dict[str, Any], rules: TokenRules, template: str, *, bos: bool
) -> BundleTokenizer:
    """A tokenizer with another tokenizer.json, other rules and another template.

    Args:
        tokenizer: as it was.
        spec: of tokenizer.json.
        rules: prepend_bos apart.
        template: in Jinja.
        bos: whether a plain prompt begins with it, where there is one.
    """
    prepend = bos and rules.bos_id is not None
    spec = _with_bos(spec, _load(spec), rules.bos_id if prepend else None)
    values = json.loads(tokenizer.tokenizer_config) | {"add_bos_token": prepend, "chat_template": template}
    return BundleTokenizer(
        tokenizer_json=_compact(spec),
        tokenizer_config=strict_json.canonical(values),
        chat_template=template,
        special_tokens=tokenizer.special_tokens,
        rules=dataclasses.replace(rules, prepend_bos=prepend),
    )


def token_rules(checkpoint: Checkpoint, config: DecoderConfig) -> TokenRules:
    """What is known of token ids without a tokenizer: from the configuration and the generation defaults."""
    given = checkpoint.generation_config.get("eos_token_id")
    listed = given if isinstance(given, list) else [given]
    ends = {i for i in listed if isinstance(i, int) and 0 <= i < config.vocab_size} | set(config.eos_token_ids)
    return TokenRules(config.vocab_size, config.bos_token_id, prepend_bos=False, stop_ids=tuple(sorted(ends)))


def spell_for_genai(tokenizer_json: bytes) -> bytes:
    """The same splitting in the words that onnxruntime-genai 0.18 knows: it passes over Digits without a word.

    Not used for the other formats, since ExecuTorch's runner (pytorch_tokenizers 1.5) knows Digits, but drops all text
    that a Split does not match.
    """
    spec = json.loads(tokenizer_json)
    steps = (spec.get("pre_tokenizer") or {}).get("pretokenizers") or []
    digits = {"type": "Digits", "individual_digits": True}
    if digits not in steps or not steps[-1].get("use_regex"):
        return tokenizer_json
    kept = [_isolated(r"\p{N}") if s == digits else s for s in steps[:-1]]
    respelled = [*kept, _isolated(GPT2_PIECES), steps[-1] | {"use_regex": False}]
    return _compact(spec | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": respelled}})


def _isolated(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _with_stops(rules: TokenRules, ends: set[Any]) -> TokenRules:
    return dataclasses.replace(rules, stop_ids=tuple(sorted(ends | set(rules.stop_ids))))


def _load(spec: dict[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        tokenizer.encode("a", add_special_tokens=True)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and a panic of its Rust code is not even that
        raise TokenizerError("tokenizer.json cannot be read", got=str(error)[:200]) from None
    return tokenizer


def _check_fits(tokenizer: Tokenizer, config: DecoderConfig) -> None:
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    beyond = sorted((i, t) for t, i in vocab.items() if i >= config.vocab_size)
    if not vocab or beyond:
        raise TokenizerError(
            "the tokenizer does not fit the model",
            got=", ".join(f"{t!r} is {i}" for i, t in beyond[:4]) or "an empty vocabulary",
            wanted=f"ids below {config.vocab_size}",
            hint="take the tokenizer of this very checkpoint",
        )


def _id_of(tokenizer: Tokenizer, token: str | None, default: int | None) -> int | None:
    found = tokenizer.token_to_id(token) if token else None
    return default if found is None else int(found)


def _adds_bos(tokenizer: Tokenizer, bos: int | None) -> bool:
    """Whether the post-processor puts bos in front of plain text."""
    plain, processed = (tokenizer.encode("a", add_special_tokens=s).ids for s in (False, True))
    return bos is not None and processed[:1] == [bos] and plain[:1] != [bos]


def _with_bos(spec: dict[str, Any], tokenizer: Tokenizer, bos: int | None) -> dict[str, Any]:
    """A post-processor that adds bos, or none: other runtimes go by it, so it has to say the same as the rules."""
    if bos is None:
        return spec | {"post_processor": None}
    token = tokenizer.id_to_token(bos)
    single = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    known = {token: {"id": token, "ids": [bos], "tokens": [token]}}
    return spec | {
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}
    }


def _turn_end(tokenizer: BundleTokenizer) -> int | None:
    """The control token that the chat template writes after an answer, if any."""
    if tokenizer.chat_template is None:
        return None
    try:
        text = _conversation(ChatTemplate(tokenizer.chat_template, tokenizer.special_tokens))
    except (BundleError, UsageError) as error:
        raise TokenizerError("the chat template cannot be used", got=error.got or error.what) from None
    tail = text.rpartition(SENTINEL)[2].lstrip()
    ids = tokenizer.tokenizer.encode(tail, add_special_tokens=False).ids[:1]
    ends = set(control_tokens(tokenizer.tokenizer).values()) - {tokenizer.rules.bos_id}
    return ids[0] if ids and ids[0] in ends else None


def _conversation(template: ChatTemplate) -> str:
    """A question, and SENTINEL as its answer. Templates of models that see want contents as lists of parts."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": SENTINEL}]
    listed = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    try:
        text = template.render(messages, add_generation_prompt=False)
    except UsageError:
        return template.render(listed, add_generation_prompt=False)
    return text if SENTINEL in text else template.render(listed, add_generation_prompt=False)


def _compact(spec: dict[str, Any]) -> bytes:
    try:
        return json.dumps(spec, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError("tokenizer.json holds text that is not Unicode", got=error) from None


def _config_json(parts: TokenizerParts, spec: dict[str, Any], prepend_bos: bool) -> bytes:
    sentencepiece = bool(spec["model"].get("byte_fallback"))
    values: dict[str, Any] = {
        "add_bos_token": prepend_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "LlamaTokenizer" if sentencepiece else "PreTrainedTokenizerFast",
        **parts.special_tokens,
    }
    if parts.chat_template is not None:
        values["chat_template"] = parts.chat_template
    return strict_json.canonical(values)
