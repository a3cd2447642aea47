"""Where pictures stand in a prompt: one placeholder a picture in what a user writes, one a row of features in the end.

A model is given, for each picture, as many placeholder ids as the encoder gives rows, with some text around them. The
rows then take the places of the placeholders' embeddings, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from satchel.runtime.errors import UsageError
from satchel.runtime.images import Prepared


@dataclass(frozen=True)
class ImageTokens:
    """What a picture becomes in a prompt.

    Attributes:
        id: of the placeholder.
        text: of the placeholder, such as "<image>"; "" without a tokenizer.
        rows: that the encoder gives for each tile.
        in_template: whether the chat template places pictures: contents are then lists of {"type": "image"} and
            {"type": "text", "text": ...}.
        single: text before the placeholders of a picture that is not cut up.
        tile: text before those of a tile, with {row} and {column} from 1.
        row_end: text after each row of tiles.
        whole: text before the placeholders of the whole picture, which follows its tiles.
        end: text after the last placeholders.
        prompt: how a plain prompt without a placeholder gets one in front, with {image} and {prompt}.
    """

    id: int
    text: str
    rows: int
    in_template: bool
    single: str
    tile: str
    row_end: str
    whole: str
    end: str
    prompt: str

    def segments(self, picture: Prepared) -> list[str | int]:
        """Text, and numbers of placeholders, in turn."""
        if not picture.rows:
            return _merged([self.single, self.rows, self.end])
        parts: list[str | int] = []
        for row in range(1, picture.rows + 1):
            for column in range(1, picture.columns + 1):
                parts += [self.tile.replace("{row}", str(row)).replace("{column}", str(column)), self.rows]
            parts.append(self.row_end)
        return _merged([*parts, self.whole, self.rows, self.end])

    def expand(
        self, ids: Sequence[int], pictures: Sequence[Prepared], encode: Callable[[str], Sequence[int]]
    ) -> list[int]:
        """Ids with one placeholder for each picture -> ids as the model is given them.

        Args:
            ids: of the prompt.
            pictures: in the order of their placeholders.
            encode: text -> ids, in which control tokens count as such.

        Raises:
            UsageError: there are not as many placeholders as pictures.
        """
        if list(ids).count(self.id) != len(pictures):
            raise UsageError(
                "the prompt has not one placeholder for each picture", got=list(ids).count(self.id),
                wanted=f"{len(pictures)} times {self.text or self.id}",
            )  # fmt: skip
        found: list[int] = []
        rest = iter(pictures)
        for token in ids:
            found += self._ids(next(rest), encode) if token == self.id else [token]
        return found

    def _ids(self, picture: Prepared, encode: Callable[[str], Sequence[int]]) -> list[int]:
        found: list[int] = []
        for part in self.segments(picture):
            found += [self.id] * part if isinstance(part, int) else encode(part)
        return found

    def placed(self, prompt: str, pictures: int) -> str:
        """A plain prompt with a placeholder for each picture: as it is where it has some."""
        if not pictures or self.text in prompt:
            return prompt
        return self.prompt.replace("{image}", self.text * pictures).replace("{prompt}", prompt)


def with_pictures(messages: Sequence[Any], pictures: int) -> list[dict[str, Any]]:
    """Messages whose contents are lists, as templates of such models want them; pictures come first in the last one.

    Nothing is added where a message names pictures itself.
    """
    found = [{**m, "content": _listed(m.get("content"))} for m in messages]
    named = sum(part.get("type") == "image" for m in found for part in m["content"] if isinstance(part, dict))
    if pictures and not named:
        found[-1]["content"] = [{"type": "image"}] * pictures + found[-1]["content"]
    return found


def _listed(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _merged(parts: Sequence[str | int]) -> list[str | int]:
    """Neighbouring text as one, since a token may reach across, and no empty text."""
    found: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return found
