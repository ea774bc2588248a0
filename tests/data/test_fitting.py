"""Rows over the limit: refused, left out or split, and every token that is kept is learned exactly once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from localllm.data.fitting import fit, windows
from localllm.errors import DataError
from localllm.types import Conversation, Example, Message
from tests.data.fakes import encoder, learned, spelled

FILE = Path("d.jsonl")


def texts(*sizes: int) -> list[Conversation]:
    """Rows whose examples have that many tokens: BOS, letters, end."""
    return [Conversation((), "x" * (n - 2), line) for line, n in enumerate(sizes, start=1)]


def chat(*answers: str, line: int = 1) -> Conversation:
    turns = [turn for a in answers for turn in (Message("user", a[0]), Message("assistant", a))]
    return Conversation((Message("system", "S"), *turns), None, line)


def test_rows_that_are_too_long_are_counted_and_named() -> None:
    rows = texts(5, 50, 7, 60)
    problem = r"2 of 4 rows are longer than 10 tokens \(lines 2, 4; the longest has 60\)"
    with pytest.raises(DataError, match=problem) as e:
        fit(encoder(), rows, 10, "error", FILE)
    assert "--max-length 60" in e.value.hint
    assert "--too-long skip" in e.value.hint
    fitted = fit(encoder(), rows, 10, "skip", FILE)
    assert [example.line for example in fitted.examples] == [1, 3]
    assert (fitted.skipped, fitted.divided) == ((2, 4), ())
    with pytest.raises(DataError, match="every row"):
        fit(encoder(), rows, 3, "skip", FILE)


@pytest.mark.parametrize("opening", [0, 1])
@pytest.mark.parametrize("limit", [3, 10, 16, 100])
def test_windows_learn_each_token_once_after_the_one_before_it(opening: int, limit: int) -> None:
    tokens = tuple(range(100, 150))
    parts = windows(Example(tokens, (False,) + (True,) * 49, 7), opening, limit)
    assert all(len(p.tokens) <= limit and p.line == 7 for p in parts)
    assert all(p.tokens[:opening] == tokens[:opening] for p in parts)
    first, *later = parts
    pairs = [*_learned_pairs(first, 1), *(pair for part in later for pair in _learned_pairs(part, opening + 1))]
    assert pairs == list(pairwise(tokens))


def _learned_pairs(example: Example, start: int) -> list[tuple[int, int]]:
    """Each learned token with the one it follows."""
    assert not any(example.mask[:start])
    return [(example.tokens[i - 1], t) for i, t in enumerate(example.tokens) if example.mask[i]]


def test_texts_are_split_to_the_last_token() -> None:
    fitted = fit(encoder(), texts(5, 23), 10, "split", FILE)
    assert (fitted.skipped, fitted.divided) == ((), (2,))
    assert "".join(learned(e) for e in fitted.examples[1:]) == "x" * 21 + ">"
    assert fit(encoder(), texts(5, 23), 5, "split", FILE).divided == (2,)


def test_conversations_are_split_between_questions() -> None:
    row = chat("abc", "def", "ghi")  # 6 + 13 tokens for each exchange, with BOS
    (whole,) = fit(encoder(), [row], 100, "split", FILE).examples
    fitted = fit(encoder(), [row], len(whole.tokens) - 1, "split", FILE)
    assert [spelled(e.tokens) for e in fitted.examples] == [
        "^<s:S>\n<u:a>\n<a:abc>\n<u:d>\n<a:def>",
        "^<s:S>\n<u:g>\n<a:ghi>",
    ]
    assert [learned(e) for e in fitted.examples] == ["abc>def>", "ghi>"]
    assert fitted.divided == (1,)


def test_an_answer_that_does_not_fit_alone_is_left_out_and_said() -> None:
    rows = [chat("abc", "d" * 80, "ghi"), chat("x", line=2)]
    fitted = fit(encoder(), rows, 30, "split", FILE)
    assert [learned(e) for e in fitted.examples] == ["abc>", "ghi>", "x>"]
    assert (fitted.skipped, fitted.divided) == ((1,), ())


def test_only_the_last_answer_keeps_what_fits_before_it() -> None:
    fitted = fit(encoder(train_on="last"), [chat("abc", "def", "ghi")], 40, "split", FILE)
    assert [spelled(e.tokens) for e in fitted.examples] == ["^<s:S>\n<u:d>\n<a:def>\n<u:g>\n<a:ghi>"]
    assert [learned(e) for e in fitted.examples] == ["ghi>"]


def test_a_limit_that_holds_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="every row"):
        fit(encoder(), texts(9), 2, "split", FILE)


def test_rows_of_which_nothing_is_learned_are_left_out_and_said() -> None:
    nothing = Conversation((), "", 3, continues=True)  # BOS alone
    fitted = fit(encoder(), [*texts(5, 6), nothing], 10, "error", FILE)
    assert fitted.unlearned == (3,)
    assert [example.line for example in fitted.examples] == [1, 2]
    with pytest.raises(DataError, match="no token of any row would be learned"):
        fit(encoder(), [nothing], 10, "skip", FILE)
