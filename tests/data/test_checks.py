"""Every finding on rows made to show it, and none on rows that do not."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest

from localllm.data.checks import Finding, check_overlap, check_rows
from localllm.data.dataset import read_dataset
from localllm.data.lengths import histogram, measure, percentiles
from localllm.data.near import near_duplicates
from localllm.types import Conversation, Example, Message
from tests.weights.oracle import shared


def row(line: int, question: str, answer: str, format_: str = "chat") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), None, line, format=format_)


def kinds(findings: list[Finding]) -> dict[str, tuple[int, ...]]:
    return {finding.kind: finding.lines for finding in findings}


LONG = "The council met on Monday evening and agreed to have the old bridge repaired before the winter comes again."


def test_clean_rows_have_no_findings() -> None:
    assert check_rows([row(i, f"What is {i}?", f"It is {i}.") for i in range(1, 30)]) == []
    assert check_rows([]) == []


def test_what_is_found_and_where() -> None:
    rows = [
        row(1, "Sum it up.", LONG),
        row(2, "Sum  IT up.\n", LONG + " "),  # the same but for case and spaces
        row(3, "Sum it up.", LONG.replace("Monday", "Tuesday") + " It was late and everybody went home after that."),
        row(4, "Sum it up.", LONG + " Yes."),
        row(5, "Who?", "Me."),
        row(6, "Who?", "You."),
        row(7, " ", "An answer to nothing."),
        Conversation((*row(8, "q", "a").messages, *row(8, "r", " ").messages), None, 8, format="chat"),
        row(9, "odd", "one", "Alpaca"),
    ]
    found = kinds(check_rows(rows))
    assert found["repeated"] == (2,)
    assert found["near-repeated"] == (4,)
    assert found["contradiction"] == (1, 2, 3, 4, 5, 6)
    assert found["empty"] == (7,)  # the later of two findings of that kind
    assert found["mixed"] == (9,)
    assert [f.lines for f in check_rows(rows) if f.kind == "empty"] == [(8,), (7,)]
    messages = [f.message for f in check_rows(rows)]
    assert "1 row is the same as an earlier one (line 2 repeats 1)." in messages
    assert "1 row is nearly the same as an earlier one (line 4 is like 1)." in messages
    assert "Most rows are chat, but there are also 1 Alpaca (line 9)." in messages


def test_rows_in_both_sets_are_found_exactly_and_nearly() -> None:
    train = [row(i, f"Question {i}", f"Answer {i}") for i in range(1, 9)] + [row(9, "Sum it up.", LONG)]
    valid = [row(1, "Question 3", "Answer 3"), row(2, "New", "one"), row(3, "Sum it up.", LONG + " Yes.")]
    assert kinds(check_overlap(train, valid)) == {"overlap": (1,), "near-overlap": (3,)}
    assert check_overlap(train, valid[1:2]) == []
    assert "(line 1 of the test rows)" in check_overlap(train, valid[:1], what="test")[0].message


def test_real_files_show_what_is_in_them() -> None:
    folder = shared() / "instructions"
    wikisql = read_dataset(folder / "wikisql" / "train.jsonl")
    assert kinds(check_rows(wikisql)) == {"repeated": (162, 516), "near-repeated": (787, 989)}
    assert wikisql[161].text == wikisql[160].text
    assert check_overlap(wikisql, read_dataset(folder / "wikisql" / "valid.jsonl")) == []
    assert "overlap" in kinds(check_overlap(wikisql, wikisql[5:6]))


def random_texts(rng: random.Random, n: int, words: int) -> list[str]:
    return [" ".join(f"w{rng.randrange(5000)}" for _ in range(rng.randint(words // 2, words))) for _ in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_planted_near_duplicates_are_found_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    texts = random_texts(rng, 400, 120)
    for i in range(40):
        words = texts[i].split()
        words[rng.randrange(len(words))] = "changed"
        texts.append(" ".join(words))
    pairs = near_duplicates(texts)
    assert [earlier for _, earlier in pairs] == [later - 400 for later, _ in pairs]
    assert len(pairs) >= 38  # a change in the shortest texts may fall below the threshold


def test_near_is_a_matter_of_degree_not_of_shared_words() -> None:
    words = LONG.split()
    shuffled = " ".join(random.Random(1).sample(words, len(words)))
    assert near_duplicates([LONG, shuffled]) == []
    assert near_duplicates([LONG, " ".join(words[:8] + ["else"] * 10)]) == []
    assert near_duplicates(["yes it is", "yes it is so"]) == []  # too short to tell
    assert near_duplicates(["", "", "a"]) == []
    chinese = "".join(chr(0x4E00 + i * 37 % 5000) for i in range(200))
    assert near_duplicates([chinese, chinese[:-1] + "一"]) == [(1, 0)]


@pytest.mark.parametrize("prefix", ["", "one two three four five six seven eight nine ten " * 6])
def test_ten_thousand_rows_take_seconds_whatever_they_share(prefix: str) -> None:
    texts = [prefix + text for text in random_texts(random.Random(0), 10_000, 60)]
    start = time.process_time()
    near_duplicates(texts)
    assert time.process_time() - start < 5


def test_lengths_are_those_of_the_examples() -> None:
    examples = [Example((1,) * n, (False,) * 2 + (True,) * (n - 2), n) for n in range(3, 103)]
    lengths = measure(examples)
    assert lengths.total == {"p5": 7, "p50": 52, "p90": 92, "p95": 97, "p99": 101, "max": 102}
    assert set(lengths.prompt.values()) == {2}
    assert lengths.answer["p50"] == 50
    assert (lengths.tokens, lengths.learned) == (sum(range(3, 103)), sum(range(1, 101)))
    assert percentiles([7]) == dict.fromkeys(("p5", "p50", "p90", "p95", "p99", "max"), 7)


@pytest.mark.parametrize("values", [[1], [5] * 9, list(range(1000)), [10] * 200 + [100_000], [2**31, 2**31 + 1]])
def test_every_row_is_in_one_bar(values: list[int]) -> None:
    bars = histogram(values)
    assert sum(count for _, _, count in bars) == len(values)
    assert 1 <= len(bars) <= 11
    assert all(a[1] + 1 == b[0] for a, b in pairwise(bars))
    assert bars[0][0] <= min(values) <= max(values) <= bars[-1][1]
