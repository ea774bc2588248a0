"""Plain text and subtitles: every character as it was written, whatever wrote it."""

from __future__ import annotations

import pytest

from localllm.data.readers import subtitles, text
from localllm.errors import DataError

SENTENCES = {
    "cp1252": "Été comme hiver, le café où j'ai dîné à Noël était fermé; l'élève — “oui” — reçoit une réponse. ",
    "cp1250": "Zażółć gęślą jaźń. Książka leży na stole, a żołnierz śpi w łóżku. ",
    "cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    "koi8-r": "Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    "cp1253": "Μπορώ να φάω σπασμένα γυαλιά χωρίς να πάθω τίποτα. ",
    "cp1255": "אני יכול לאכול זכוכית וזה לא מזיק לי. ",
    "cp1256": "أنا قادر على أكل الزجاج و هذا لا يؤلمني. ",
    "shift_jis": "吾輩は猫である。名前はまだ無い。",
    "euc_jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "gb18030": "我能吞下玻璃而不伤身体。今天的天气很好。",
    "big5": "我能吞下玻璃而不傷身體。今天的天氣很好。",
    "euc_kr": "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요. ",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_an_encoding_is_guessed_and_the_guess_is_said(encoding: str) -> None:
    whole = SENTENCES[encoding] * 20
    found = text.read(whole.encode(encoding))
    assert found.text == whole
    assert found.warnings == (f"the encoding was guessed: {found.encoding}",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_is_no_guess(encoding: str) -> None:
    whole = "Größe, 漢字, 🙂 and\r\nplain words\x0c, again and again."
    found = text.read(whole.encode(encoding))
    assert found.text == whole
    assert found.warnings == ()


def test_a_few_damaged_bytes_are_shown_and_said() -> None:
    found = text.read("Größe — Übermut 漢字".encode()[:-1])
    assert found.text == "Größe — Übermut 漢�"
    assert found.warnings == ("some of it is not UTF-8 and is shown as �",)


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 4, b"\x00\x01\xff", b"\xff\xfe\x00", b"\x00" * 99, b"a\x01b\x02" * 9]
)
def test_what_is_binary_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="binary"):
        text.read(content)


def test_captions_are_what_is_said() -> None:
    found = subtitles.read(
        "1\r\n00:00:01,000 --> 00:00:02,000\r\n{\\an8}<b>Guten Tag</b>\r\nund hallo\r\n"
        "2\r\n00:00:02,500 --> 00:00:04,000\r\n- Ja. 5 < 7\r\n\r\n"
        "3\r\n00:01:00,000 --> 00:01:01,000\r\nSpäter\r\n".encode()
    )
    assert found.text == "Guten Tag\nund hallo\n- Ja. 5 < 7\n\nSpäter"


def test_captions_that_roll_up_are_said_once() -> None:
    found = subtitles.read(
        b"WEBVTT\nKind: captions\n\nNOTE made by\na machine\n\nSTYLE\n::cue {}\n\n"
        b"00:01.000 --> 00:03.000 align:start\n \nso<00:01.500><c> this</c> is\n\n"
        b"00:03.000 --> 00:03.010\nso this is\n \n\n00:03.010 --> 00:05.000\nso this is\nhow it rolls &amp; goes\n\n"
        b"00:05.500 --> 00:06.000\n<v Ann Lee>No.\n\n00:07.000 --> 00:08.000\nNo.\n"
    )
    assert found.text == "so this is\nhow it rolls & goes\nAnn Lee: No.\nNo."


def test_a_caption_that_grows_is_said_once() -> None:
    found = subtitles.read(
        b"1\n00:00:01,000 --> 00:00:02,000\nIt\n\n2\n00:00:02,000 --> 00:00:03,000\nIt grows\n\n"
        b"3\n00:00:03,000 --> 00:00:04,000\nIt grows on\n"
    )
    assert found.text == "It grows on"
