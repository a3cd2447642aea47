"""A conversation -> ids: the chat template in a sandbox, and user text that cannot pass for control tokens.

A template is a program that came with a checkpoint. It runs in Jinja's immutable sandbox, sees only plain JSON values,
and cannot blow up memory by multiplication.

Text in messages may spell out a control token, such as `<|im_end|>`. Were the rendered text encoded as a whole, the
tokenizer would take it for the real one. So each such spelling is replaced before rendering by one rare
character, and put back when the pieces of the rendered text are encoded, as the characters that it is made of. A
conversation without such text is encoded as a whole, exactly as transformers does. With a tokenizer that marks the
beginning of a text (SentencePiece's leading space), the pieces after the first may differ from what plain text would
give; control tokens still cannot be forged. Only tokens that the tokenizer marks as special are guarded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError, TokenizerError, UsageError

Message = Mapping[str, Any]

LARGEST_PRODUCT = 1 << 20  # of a sequence times a number, in a template
STAND_INS = range(0x12000, 0x1239A)  # cuneiform: printable, without case, never normalized, hardly ever typed


class ChatTemplate:
    """A chat template, rendered as transformers does.

    Args:
        source: content of chat_template.jinja.
        special_tokens: such as {"bos_token": "<s>"}, which templates refer to.

    Raises:
        BundleError: the template is no valid Jinja.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any] | None = None) -> None:
        self._special = dict(special_tokens or {})
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise BundleError("chat_template.jinja is not a valid template", got=error) from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text that the model is given.

        Args:
            messages: each with "role" and "content", oldest first.
            add_generation_prompt: end with the beginning of the assistant's answer.
            variables: further variables of the template, such as tools.

        Raises:
            UsageError: the template refuses the conversation, or a message is malformed.
        """
        known = {"tools": None, "documents": None, **self._special, **_plain(variables)}
        try:
            return self._template.render(
                messages=_plain(checked(messages)), add_generation_prompt=add_generation_prompt, **known
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            hint = "most templates want the roles user and assistant in turn, and text as content"
            raise UsageError("the chat template refuses this conversation", got=error, hint=hint) from None


def checked(messages: Sequence[Message]) -> list[Message]:
    """The messages as a list.

    Raises:
        UsageError: empty, or one without role and content.
    """
    if isinstance(messages, str | bytes | Mapping) or not messages:
        raise UsageError("a conversation is a list of messages", got=messages, wanted='[{"role": ..., "content": ...}]')
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UsageError("a message lacks its role or content", got=message, wanted='{"role": ..., "content": ...}')
    return list(messages)


def special_tokens(tokenizer_config: bytes) -> dict[str, Any]:
    """The special tokens by name, as templates know them, out of tokenizer_config.json."""
    config = strict_json.parse(tokenizer_config, "tokenizer_config.json", exact_integers=False)
    if not isinstance(config, dict):
        raise BundleError("tokenizer_config.json is not what it should be", wanted="an object")
    named = {k: v for k, v in config.items() if k.endswith("_token") and not k.startswith("add_")}
    texts = {k: v.get("content") if isinstance(v, dict) else v for k, v in named.items()}
    return {k: v for k, v in texts.items() if isinstance(v, str)}


@dataclass(frozen=True)
class Guard:
    """Stand-ins for control tokens that occur in messages.

    Attributes:
        stand_ins: the spelling of a control token -> one character that occurs nowhere in the conversation.
    """

    stand_ins: Mapping[str, str]

    @classmethod
    def of(cls, messages: Sequence[Message], control_tokens: Sequence[str]) -> Guard:
        """For those of the control tokens that the messages spell out."""
        text = json.dumps(_plain(list(messages)), ensure_ascii=False)
        texts = "\0".join(_strings(_plain(list(messages))))
        used = sorted((t for t in control_tokens if t and t in texts), key=lambda t: (-len(t), t))
        free = [chr(c) for c in STAND_INS if chr(c) not in text]
        if len(used) > len(free):
            raise UsageError("a conversation spells out too many control tokens", got=len(used), wanted=len(free))
        return cls(dict(zip(used, free, strict=False)))

    def hide(self, value: Any) -> Any:
        """A JSON value with the spellings replaced in all its strings."""
        return _map_strings(value, self._hide)

    def show(self, text: str) -> str:
        """Text with the spellings put back."""
        for token, stand_in in self.stand_ins.items():
            text = text.replace(stand_in, token)
        return text

    def _hide(self, text: str) -> str:
        for token, stand_in in self.stand_ins.items():
            text = text.replace(token, stand_in)
        return text


def encode_guarded(tokenizer: Tokenizer, text: str, guard: Guard) -> list[int]:
    """Ids of rendered text; only control tokens that the template itself wrote become control ids.

    Args:
        tokenizer: of the bundle.
        text: rendered from messages that `guard` has hidden.
        guard: what was hidden.
    """
    if not guard.stand_ins:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    ids: list[int] = []
    for piece, control in split_at(text, control_tokens(tokenizer)):
        ids += [control] if control is not None else _encode_literally(tokenizer, guard.show(piece))
    return ids


def control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Every token that the tokenizer marks as special -> its id."""
    return {t.content: i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}


def split_at(text: str, tokens: Mapping[str, int]) -> list[tuple[str, int | None]]:
    """Text cut at control tokens, leftmost and longest first: (piece, its id, or None for text between them)."""
    pieces: list[tuple[str, int | None]] = []
    while text:
        found = [(text.find(t), -len(t), t) for t in tokens if t in text]
        start, _, token = min(found, default=(len(text), 0, ""))
        if start:
            pieces.append((text[:start], None))
        if token:
            pieces.append((token, tokens[token]))
        text = text[start + len(token) :]
    return pieces


def _encode_literally(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of text in which control tokens are only characters."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
    finally:
        tokenizer.encode_special_tokens = before
    if set(ids) & set(control_tokens(tokenizer).values()):
        raise TokenizerError("the tokenizer turns this text into a control token", got=repr(text[:80]))
    return ids


def _plain(value: Any) -> Any:
    """Only exact JSON types: an object with methods would be a way out of the sandbox."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise UsageError("a message holds a value that is no text or number", got=type(value).__name__)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change) for key, item in value.items()}
    return [_map_strings(item, change) for item in value] if isinstance(value, list | tuple) else value


def _strings(value: Any) -> list[str]:
    found: list[str] = []
    _map_strings(value, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
    return found


class _GenerationBlock(Extension):
    """`{% generation %}`, by which templates mark the assistant's words for training; here it only passes them on."""

    tags = {"generation"}  # noqa: RUF012 (Jinja wants a set)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which limits range() but not multiplication."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Refuses products that would not fit into memory."""
        sizes = [len(v) if hasattr(v, "__len__") else abs(v) for v in (left, right)]
        sequence = hasattr(left, "__len__") or hasattr(right, "__len__")
        if (sequence and sizes[0] * sizes[1] > LARGEST_PRODUCT) or (operator == "**" and max(sizes) > 64):
            raise jinja2.exceptions.SecurityError("a product that is too large")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the escapes for HTML that Jinja's own filter adds."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)
