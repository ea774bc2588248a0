"""What reaches a terminal: no control character, at any split, and ordinary text untouched."""

from __future__ import annotations

import unicodedata

import pytest

from localllm.sanitize import Sanitizer, sanitize, sanitize_line

CODES = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))]
BAD = [code for code in CODES if code not in "\n\t"]

SEQUENCES = [
    "\x1b]52;c;SGVsbG8=\x07",
    "\x1b]52;c;SGVsbG8=\x1b\\",
    "\x9d52;c;SGVsbG8=\x9c",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x1bP+q544e\x1b\\",
    "\x1b]8;;http://a.example\x1b\\link\x1b]8;;\x1b\\",
    "a\u202eb\u2066c\u200bd",
    "👩\u200d💻 and \u200d alone",
    "می\u200cخواهم, a\u200cb\u200d",
    "👩\u200d\u200d💻\u200d",
    "line\r\nnext\rover",
]


def has_control(text: str) -> bool:
    return any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text)


def in_pieces(*pieces: str) -> str:
    sanitizer = Sanitizer()
    return "".join([*map(sanitizer.feed, pieces), sanitizer.flush()])


def test_there_are_65_codes():
    assert len(CODES) == 65


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{ord(c):02x}")
def test_every_code_at_every_split(code: str):
    text = f"ab{code}[31m{code}cd"
    whole = sanitize(text)
    assert not has_control(whole)
    assert (code in whole) == (code in "\n\t")
    for i in range(len(text) + 1):
        for j in range(i, len(text) + 1):
            assert in_pieces(text[:i], text[i:j], text[j:]) == whole


@pytest.mark.parametrize("text", SEQUENCES)
def test_sequences_at_every_split(text: str):
    whole = sanitize(text)
    assert not has_control(whole)
    assert in_pieces(*text) == whole
    for i in range(len(text) + 1):
        assert in_pieces(text[:i], text[i:]) == whole


def test_escape_sequences_are_shown_as_their_characters():
    assert sanitize("\x1b[31mred\x1b[0m") == "␛[31mred␛[0m"
    assert sanitize("\x9b31m\x7f") == "⟨9B⟩31m␡"


@pytest.mark.parametrize(
    "text",
    [
        "Plain ASCII, ünïcödé, 漢字, עברית, العربية.\n\tindented\n",
        "👩‍💻 👨‍👩‍👧 ❤️ 🏳️‍🌈 🇫🇷 1️⃣",
        "می‌خواهم",
        "e\u0301 → ∑ ┌─┐ ␛",
    ],
)
def test_ordinary_text_is_left_alone(text: str):
    assert sanitize(text) == text


@pytest.mark.parametrize("code", [0x200B, 0x200E, 0x202A, 0x202E, 0x2066, 0x2069, 0x2028, 0xFEFF, 0x2060, 0xE0041])
def test_hidden_characters_are_shown(code: int):
    assert sanitize(f"a{chr(code)}b") == f"a⟨U+{code:04X}⟩b"


@pytest.mark.parametrize("text", ["a\u200db", "\u200d", "👩\u200db", "a\u200c"])
def test_a_joiner_that_joins_nothing_is_shown(text: str):
    assert not {"\u200d", "\u200c"} & set(sanitize(text))
    assert "⟨U+200" in sanitize(text)


def test_windows_line_endings_become_newlines_and_nothing_is_overwritten():
    assert sanitize("safe\r\nrm -rf\rls") == "safe\nrm -rfls"


def test_lone_surrogates_can_be_encoded_afterwards():
    assert sanitize("a\udcffb").encode() == "a\ufffdb".encode()


def test_a_name_is_one_line():
    assert sanitize_line("  my\nmodel\x1b[2J\t4-bit ") == "my model␛[2J 4-bit"


def test_a_flushed_sanitizer_is_as_new():
    sanitizer = Sanitizer()
    assert sanitizer.feed("👩\u200d") == "👩"
    assert sanitizer.flush() == "⟨U+200D⟩"
    assert sanitizer.feed("💻") == "💻"
