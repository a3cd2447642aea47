"""Where pictures stand in the prompts of a family, and the fixed prompts with a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from satchel.export.families.multimodal import Words
from satchel.export.golden import CHAT, PLAIN, Prompt, random_prompts
from satchel.export.tokenizer import BundleTokenizer, retold
from satchel.export.vision.checkpoint import Parts
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import MissingPackageError, TokenizerError, UsageError
from satchel.runtime.image_tokens import ImageTokens, with_pictures
from satchel.runtime.images import ImagePreparation, Prepared, prepare

TILES = {
    "single": "<fake_token_around_image><global-img>",
    "tile": "<fake_token_around_image><row_{row}_col_{column}>",
    "row_end": "\n",
    "whole": "\n<fake_token_around_image><global-img>",
    "end": "<fake_token_around_image>",
    "prompt": "{image}{prompt}",
}
"""Of SmolVLM and Idefics3, as their processors have it."""
NOTHING = {"single": "", "tile": "", "row_end": "", "whole": "", "end": "", "prompt": "{image}\n{prompt}"}

QUESTIONS = ("What is this?", "Describe the colors of this picture in one sentence.")
SEED, SIZE = 20260102, (180, 240)
"""Of the golden picture: height and width."""


def taught(parts: Parts, tokenizer: BundleTokenizer) -> BundleTokenizer:
    """A tokenizer whose placeholder of pictures is a control token, so that no user's text can be taken for one.

    Where a family has `words`, its tokenizers know nothing of pictures: they are given the placeholder, and the
    template and the stop ids of the family's prompts.

    Raises:
        TokenizerError: the placeholder is no token of its own.
    """
    spec = json.loads(tokenizer.tokenizer_json)
    if parts.family.words is None:
        return _controlled(tokenizer, spec, parts.placeholder)
    words = parts.family.words(parts.given)
    place = tokenizer.tokenizer.get_vocab_size(with_added_tokens=True)
    if place >= tokenizer.rules.vocab_size:
        raise TokenizerError("the vocabulary has no row left for the placeholder of pictures", got=place)
    token = {"id": place, "content": words.placeholder, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}  # fmt: skip
    spec["added_tokens"] = [*spec.get("added_tokens", []), token]
    ends = set(tokenizer.encode_part(words.stops)) if words.stops else set()
    rules = replace(tokenizer.rules, stop_ids=tuple(sorted(ends | set(tokenizer.rules.stop_ids))))
    return retold(tokenizer, spec, rules, words.template, bos=words.bos)


def _controlled(tokenizer: BundleTokenizer, spec: dict[str, Any], placeholder: int) -> BundleTokenizer:
    """The same with a placeholder that is a control token; of a tokenizer that has it as a token."""
    token = next((t for t in spec.get("added_tokens", []) if t.get("id") == placeholder), None)
    if token is None:
        wanted = "an added token such as <image>"
        raise TokenizerError("the tokenizer lacks the placeholder of pictures", got=placeholder, wanted=wanted)
    if token.get("special"):
        return tokenizer
    token["special"] = True
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    return replace(tokenizer, tokenizer_json=text.encode())


def image_tokens(
    config: VisionConfig, placeholder: int, tokenizer: BundleTokenizer | None, words: Words | None = None
) -> ImageTokens:
    """What a picture becomes in a prompt; `words` are of a family whose tokenizer was taught.

    Raises:
        TokenizerError: the tokenizer has no token of this id.
    """
    text = tokenizer.tokenizer.id_to_token(placeholder) if tokenizer else ""
    if text is None:
        wanted = "a token such as <image>"
        raise TokenizerError("the tokenizer lacks the placeholder of pictures", got=placeholder, wanted=wanted)
    around = NOTHING if config.family == "llava" else TILES
    if words is not None:
        around = {**NOTHING, "single": words.single, "end": words.end, "prompt": words.prompt}
    return ImageTokens(placeholder, text, config.rows, _in_template(tokenizer, text), **around)


def _in_template(tokenizer: BundleTokenizer | None, placeholder: str) -> bool:
    """Whether the chat template writes the placeholder where a message's content names a picture."""
    if tokenizer is None or tokenizer.chat_template is None:
        return False
    try:
        ids = tokenizer.encode_chat(with_pictures([{"role": "user", "content": "a"}], 1))
    except UsageError:
        return False
    return [tokenizer.tokenizer.id_to_token(i) for i in ids].count(placeholder) == 1


@dataclass(frozen=True)
class GoldenPicture:
    """The picture of the golden prompts.

    Attributes:
        png: its file.
        prepared: as the encoder takes it.
    """

    png: bytes
    prepared: Prepared


def golden_picture(how: ImagePreparation) -> GoldenPicture:
    """Shapes of plain colors over a gradient, with some noise: the same wherever it is made."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need Pillow", got=error, hint="pip install 'satchel[images]'") from error
    as_it_is = how.resize == "none" and not how.crop
    array = drawn(SEED, *((how.height, how.width) if as_it_is else SIZE))
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return GoldenPicture(stream.getvalue(), prepare(array, how))


def drawn(seed: int, height: int, width: int) -> np.ndarray:
    """A synthetic picture, uint8 [height, width, 3]. Integers only, so that every machine draws the same."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width]
    first, last = random.integers(0, 256, (2, 3))
    picture = (first * (height + width - y - x)[..., None] + last * (y + x)[..., None]) // (height + width)
    for _ in range(6):
        top, left = random.integers(0, (height, width))
        size, color, kind = (
            random.integers(min(height, width) // 8, min(height, width) // 2),
            *random.integers(0, 256, (1, 3)),
            random.integers(2),
        )
        inside = np.maximum(abs(y - top), abs(x - left)) < size // 2
        if kind:
            inside = 4 * ((y - top) ** 2 + (x - left) ** 2) < size**2
        picture[inside] = color
    picture = picture + random.integers(-12, 13, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def seeing_prompts(
    tokens: ImageTokens,
    tokenizer: BundleTokenizer | None,
    picture: Prepared,
    vocab_size: int,
    context_length: int,
    *,
    brief: bool = False,
) -> list[Prompt]:
    """The golden prompts: some with the picture, which come first, some without; with `brief` one with it.

    Raises:
        UsageError: no prompt with the picture fits the context.
    """
    if tokenizer is None:
        seeing = [_without_text(tokens, picture, prompt) for prompt in random_prompts(vocab_size, tokens.id)]
        others = random_prompts(vocab_size, tokens.id)[2:4]
        found = [*seeing[:2], *others]
    else:
        found = [_question(tokens, tokenizer, picture, text) for text in QUESTIONS]
        found += [Prompt(text, tuple(tokenizer.encode(text))) for text in PLAIN[:3]]
        found.append(_chat(tokens, tokenizer, CHAT[0]))
    if brief:
        found.remove(next(p for p in reversed(found) if p.pictured))
    fitting = [p for p in found if p.ids and len(p.ids) <= context_length]
    if not any(p.pictured for p in fitting):
        got, hint = min(len(p.ids) for p in found if p.pictured), "export with a larger --context"
        raise UsageError("a picture does not fit the context", got=f"{got} ids", wanted=context_length, hint=hint)
    return fitting


def _without_text(tokens: ImageTokens, picture: Prepared, prompt: Prompt) -> Prompt:
    ids = tokens.expand([tokens.id, *prompt.ids[:12]], [picture], lambda text: [])
    return Prompt(None, tuple(ids), pictured=True)


def _question(tokens: ImageTokens, tokenizer: BundleTokenizer, picture: Prepared, text: str) -> Prompt:
    if tokens.in_template and not tokenizer.tells_the_time:
        ids: Sequence[int] = tokenizer.encode_chat(with_pictures([{"role": "user", "content": text}], 1))
    else:
        ids = tokenizer.encode(tokens.placed(text, 1))
    return Prompt(text, tuple(tokens.expand(ids, [picture], tokenizer.encode_part)), pictured=True)


def _chat(tokens: ImageTokens, tokenizer: BundleTokenizer, text: str) -> Prompt:
    if tokens.in_template and not tokenizer.tells_the_time:
        return Prompt(text, tuple(tokenizer.encode_chat(with_pictures([{"role": "user", "content": text}], 0))))
    return Prompt(text, tuple(tokenizer.encode(text)))
