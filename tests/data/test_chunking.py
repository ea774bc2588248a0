"""Parts of a document are the document: no character lost, none twice, none over the budget, each cut in its place."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from localllm.data.chunking import split_text, unwrap
from localllm.engine.llama import LlamaEngine
from localllm.types import Chunk

PIECES = {
    "Latin": ["word ", "Sentence. ", "End! ", "Mr. ", "e.g. ", "é", "e\u0301", "“Quote.” ", "x" * 60],
    "Chinese": ["漢字", "かな", "。", "、", "「はい。」", "　"],
    "Arabic": ["كلمة ", "سؤال؟ ", "جملة. ", "هَذَا "],
    "Devanagari": ["क्षि", "हिन्दी ", "वाक्य। ", "ज़"],
    "Korean and Thai": ["한국어 ", "\u1112\u1161\u11ab", "ภาษาไทย", "น้ำ"],
    "emoji": ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️"],
    "layout": ["\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "    ", "\n# Heading\n", "- item\n", "\u2028", "\0"],
}  # fmt: skip


def words(text: str) -> int:
    """A stand-in for a tokenizer: four characters to a token, as in English."""
    return (len(text) + 3) // 4


def uneven(text: str) -> int:
    """A count that grows by joining: blanks that meet letters cost one more."""
    return len(text.encode()) // 3 + sum(a == " " and b != " " for a, b in pairwise(text)) + bool(text)


def check(text: str, budget: int, count: object = words) -> list[Chunk]:
    assert callable(count)
    chunks = list(split_text(text, budget, count))
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.start for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == len(text)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.tokens == count(chunk.text) <= budget
    return chunks


def random_text(rng: random.Random) -> str:
    pieces = [piece for name in rng.sample(list(PIECES), 3) for piece in PIECES[name]] + PIECES["layout"]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 400)))


@pytest.mark.parametrize("budget", [8, 50, 400, 100_000])
@pytest.mark.parametrize("name", ["the-verdict.txt", "alice-pg11.txt"])
def test_real_books_are_covered(shared: Path, name: str, budget: int) -> None:
    check((shared / "documents" / name).read_text("utf-8"), budget)


@pytest.mark.parametrize("count", [words, uneven])
@pytest.mark.parametrize("seed", range(40))
def test_random_text_is_covered(seed: int, count: object) -> None:
    rng = random.Random(seed)
    check(random_text(rng), rng.choice([8, 20, 60, 200]), count)


@pytest.mark.parametrize("seed", range(6))
def test_a_real_tokenizer_agrees_with_every_count(seed: int, guide: LlamaEngine) -> None:
    def count(text: str) -> int:
        return len(guide.tokenize(text, add_special=False, parse_special=False))

    rng = random.Random(seed)
    check(random_text(rng), rng.choice([16, 60, 200]), count)


@pytest.mark.parametrize("seed", range(30))
def test_an_overlap_repeats_the_end_of_the_part_before_and_nothing_more(seed: int) -> None:
    rng = random.Random(seed)
    text, budget, overlap = random_text(rng), rng.choice([40, 120]), rng.choice([5, 20])
    chunks = list(split_text(text, budget, words, overlap))
    assert chunks[0].start == 0
    assert chunks[-1].end == len(text)
    for before, after in pairwise(chunks):
        assert before.start <= after.start <= before.end < after.end
        assert words(text[after.start : before.end]) <= overlap
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.tokens == words(chunk.text) <= budget


def test_an_overlap_begins_at_a_sentence() -> None:
    text = "".join(f"Sentence number {i} is here. " for i in range(100))
    chunks = list(split_text(text, 60, words, 20))
    assert all(chunk.text.startswith("Sentence number") for chunk in chunks)
    assert all(words(text[b.start : a.end]) >= 8 for a, b in pairwise(chunks)), "most of what is allowed is used"


def test_a_part_begins_at_a_heading_where_it_can() -> None:
    sections = [f"## Section {i}\n\n" + "Some words of a paragraph.\n\n" * 6 for i in range(12)]
    chunks = check("".join(sections), 90)
    assert all(chunk.text.startswith("## Section") for chunk in chunks)
    assert not any(chunk.text.rstrip().splitlines()[-1].startswith("#") for chunk in chunks)


def test_cuts_fall_between_paragraphs_where_they_can() -> None:
    text = "\n\n".join(f"Paragraph {i}. " + "Some more words here. " * 5 for i in range(20))
    for chunk in check(text, 100)[1:]:
        assert chunk.text.startswith("Paragraph")


@pytest.mark.parametrize(
    "sentence, budget",
    [
        ("This is one sentence of some length. ", 40),
        ("Dr. J. Smith met Mrs. Jones, i.e. his aunt, at No. 5. ", 40),
        ("これは一つの文です。", 12),
        ("هل هذه جملة واحدة؟ ", 16),
        ("यह एक वाक्य है। ", 16),
    ],
)
def test_a_long_paragraph_is_cut_between_sentences(sentence: str, budget: int) -> None:
    for chunk in check(sentence * 50, budget):
        assert chunk.text == sentence * (len(chunk.text) // len(sentence))


@pytest.mark.parametrize("grapheme", ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "e\u0301", "क्षि", "\u1112\u1161\u11ab", "\r\n"])
def test_no_grapheme_is_cut(grapheme: str) -> None:
    for chunk in check(grapheme * 200, 10):
        assert len(chunk.text) % len(grapheme) == 0


@pytest.mark.parametrize("length", [101, 120, 199, 201, 250, 320, 405])
def test_no_last_part_is_tiny(length: int) -> None:
    chunks = check("word " * (length * 4 // 5), 100)
    assert min(chunk.tokens for chunk in chunks) >= 25
    assert len(chunks) <= length // 100 + 2


@pytest.mark.parametrize("character", ["x", ".", " ", "\n", "漢", "\u0301", "\u200d", "🇩", '"'])
def test_one_run_of_a_character_is_cut_in_linear_time(character: str) -> None:
    """A hundred thousand tokens without a border, which a search that starts over would not end in a lifetime."""
    calls = 0

    def count(text: str) -> int:
        nonlocal calls
        calls += len(text)
        return words(text)

    text = character * 400_000
    check_parts = list(split_text(text, 100, count))
    assert "".join(chunk.text for chunk in check_parts) == text
    assert max(chunk.tokens for chunk in check_parts) <= 100
    assert calls < 4 * len(text), "each character is counted a few times, however long the text"


def test_parts_come_before_the_text_is_read_to_its_end() -> None:
    seen = 0

    def count(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return words(text)

    first = next(split_text("A sentence of some words. " * 100_000, 100, count))
    assert first.start == 0
    assert seen < 10_000


def test_a_budget_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        split_text("text", 7, words)
    with pytest.raises(ValueError, match="overlap"):
        split_text("text", 20, words, 11)


def test_no_text_has_no_parts() -> None:
    assert list(split_text("", 100, words)) == []


def test_wrapped_prose_is_unwrapped_and_nothing_else() -> None:
    wrapped = (
        "# Title\r\nThe first line of a paragraph that was wrapped\r\nat some column, as old\n"
        "texts are.\r\n\r\n- one\n- two\n"
    )
    whole = (
        "# Title\nThe first line of a paragraph that was wrapped at some column, as old\ntexts are.\n\n- one\n- two\n"
    )
    assert unwrap(wrapped) == whole
