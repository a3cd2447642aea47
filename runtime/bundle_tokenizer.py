"""The tokenizer and the chat template of a bundle."""

from __future__ import annotations

from tokenizers import Tokenizer

from satchel.runtime.bundle import Bundle
from satchel.runtime.chat import ChatTemplate, special_tokens
from satchel.runtime.errors import TokenizerError


def read_tokenizer(bundle: Bundle) -> Tokenizer | None:
    """tokenizer.json; None where there is none.

    Raises:
        TokenizerError: it cannot be read, or does not fit the model.
    """
    text = bundle.text("tokenizer.json")
    if text is None:
        return None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError("tokenizer.json cannot be read", got=error, hint="export the bundle again") from None
    # A model's embedding is often padded beyond the tokenizer, never the other way round.
    size, vocab = tokenizer.get_vocab_size(with_added_tokens=True), bundle.manifest.tokens.vocab_size
    if size > vocab:
        raise TokenizerError("the tokenizer has more ids than the model", got=size, wanted=f"at most {vocab}")
    return tokenizer


def read_template(bundle: Bundle) -> ChatTemplate | None:
    """chat_template.jinja with the tokenizer's special tokens; None where there is none."""
    source = bundle.text("chat_template.jinja")
    if source is None:
        return None
    config = bundle.text("tokenizer_config.json")
    return ChatTemplate(source, special_tokens(config.encode("utf-8")) if config else {})
