"""Stop sequences and characters, cut at every place."""

from __future__ import annotations

import itertools

import pytest

from localllm.engine.output import OutputText

TEXT = "naïve 日本 🙂 fin<stop>never"


@pytest.mark.parametrize("cut", itertools.combinations(range(1, len(TEXT.encode())), 2))
def test_every_split_gives_the_same_text(cut: tuple[int, int]) -> None:
    data = TEXT.encode()
    output = OutputText(("<stop>", "other"))
    pieces = [output.feed(data[a:b]) for a, b in itertools.pairwise((0, *cut, len(data)))]
    assert "".join(pieces) + output.flush() == "naïve 日本 🙂 fin"
    assert output.stopped


def test_what_only_began_like_a_stop_sequence_is_given_in_the_end() -> None:
    output = OutputText(("<stop>",))
    assert output.feed(b"one <st") == "one "
    assert output.feed(b"ep") == "<step"
    assert output.feed(b" <sto") == " "
    assert output.flush() == "<sto"


def test_bytes_that_are_no_character_are_replaced() -> None:
    output = OutputText()
    assert output.feed(b"a\xff") + output.feed(b"\xf0\x9f") + output.flush() == "a\ufffd\ufffd"
