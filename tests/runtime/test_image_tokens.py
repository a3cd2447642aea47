"""Placeholders become what transformers' processor of SmolVLM makes of them."""

import numpy as np
import pytest
from tiny_checkpoints import tiny_tokenizer
from tiny_vision import PLACEHOLDER, TILE_TOKENS
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from satchel.export.vision.prompts import NOTHING, TILES
from satchel.runtime.errors import UsageError
from satchel.runtime.image_tokens import ImageTokens, with_pictures
from satchel.runtime.images import Prepared

PIXELS = np.zeros((1, 3, 4, 4), np.float32)


def tokenizer():
    found = tiny_tokenizer()
    found.add_special_tokens(["<image>", *TILE_TOKENS])
    return found


def encoded(text):
    return tokenizer().encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("tiles", [(0, 0), (1, 2), (2, 2)])
def test_smolvlm(tiles):
    tokens = ImageTokens(PLACEHOLDER, "<image>", 3, True, **TILES)
    wanted = get_image_prompt_string(*tiles, 3, "<fake_token_around_image>", "<image>", "<global-img>")
    found = tokens.expand(encoded("Hello <image> there"), [Prepared(PIXELS, *tiles)], encoded)
    assert found == encoded(f"Hello {wanted} there")


def test_llava_and_wrong_counts():
    tokens = ImageTokens(PLACEHOLDER, "<image>", 4, False, **NOTHING)
    shown = [Prepared(PIXELS), Prepared(PIXELS)]
    prompt = tokens.placed("What?", 2)
    assert tokens.expand(encoded(prompt), shown, encoded) == encoded("<image>" * 8 + "\nWhat?")
    assert tokens.placed("Here <image> it is", 1) == "Here <image> it is"
    for given in ([], shown[:1]):
        with pytest.raises(UsageError, match="placeholder"):
            tokens.expand(encoded(prompt), given, encoded)


def test_contents_become_lists():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert with_pictures(messages, 0)[1]["content"] == [{"type": "text", "text": "b"}]
    found = with_pictures([*messages, {"role": "user", "content": "c"}], 1)
    assert found[2]["content"] == [{"type": "image"}, {"type": "text", "text": "c"}]
    named = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}, *messages]
    assert with_pictures(named, 1)[2]["content"] == [{"type": "text", "text": "b"}]
