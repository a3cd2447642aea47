from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_bundle import byte_tokenizer

from satchel.runtime.generate import BROKEN, TextStream

TOKENIZER = byte_tokenizer()


def stream(ids, stop=()) -> tuple[list[str], TextStream]:
    s = TextStream(TOKENIZER, stop)
    pieces = []
    for i in ids:
        pieces.append(s.push(i))
        if s.stopped:
            return pieces, s
    return [*pieces, s.flush()], s


@given(st.text(max_size=30).filter(lambda t: BROKEN not in t))
def test_pieces_join_to_the_text_and_none_is_broken(text: str):
    pieces, _ = stream(TOKENIZER.encode(text).ids)
    assert "".join(pieces) == text
    assert all(BROKEN not in p for p in pieces)


def test_a_character_of_four_bytes_comes_at_its_last():
    pieces, _ = stream(TOKENIZER.encode("a🙂b").ids)
    assert pieces == ["a", "", "", "", "🙂", "b", ""]


def test_bytes_of_an_unfinished_character_are_dropped_at_the_end():
    pieces, _ = stream(TOKENIZER.encode("ok🙂").ids[:-1])
    assert "".join(pieces) == "ok"


def test_control_tokens_are_not_text():
    pieces, _ = stream([*TOKENIZER.encode("hi").ids, 257, *TOKENIZER.encode("!").ids])
    assert "".join(pieces) == "hi!"


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stop_strings_cut_and_nothing_is_lost_or_given_too_early(text: str, stop: list[str]):
    # Sequential meaning: the text ends at the first moment at which it holds a stop string.
    wanted, ended = text, False
    for end in range(1, len(text) + 1):
        found = [text[:end].find(s) for s in stop if s in text[:end]]
        if found:
            wanted, ended = text[: min(found)], True
            break
    pieces, s = stream(TOKENIZER.encode(text).ids, stop)
    assert "".join(pieces) == wanted and s.stopped == ended


def test_empty_stop_strings_are_no_stop():
    pieces, s = stream(TOKENIZER.encode("ab").ids, ("",))
    assert "".join(pieces) == "ab" and not s.stopped


@pytest.mark.parametrize("text", ["naïve café", "日本語", "👩‍👩‍👧", "a\u0301"])
def test_held_back_text_is_given_at_the_end(text: str):
    pieces, _ = stream(TOKENIZER.encode(text + "</s").ids, ("</stop>",))
    assert "".join(pieces) == text + "</s"
