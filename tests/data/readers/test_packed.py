"""Word documents and EPUB books: all of their text, and no harm from an archive that a stranger made."""

from __future__ import annotations

import zipfile

import pytest

from localllm.data.readers import archive, docx, epub
from localllm.errors import DataError
from tests.data.readers import samples
from tests.data.readers.samples import W, paragraph


def test_a_word_document_reads_in_order() -> None:
    cell = "<w:tc>" + paragraph("{}") + "</w:tc>"
    body = (
        paragraph("One", "berschrift1") + paragraph("A & B.") + paragraph("first", "L") + paragraph("second", "L")
        + "<w:tbl><w:tr>" + cell.format("a") + cell.format("b") + "</w:tr></w:tbl>" + paragraph("End.")
    )  # fmt: skip
    found = docx.read(samples.docx(body))
    assert found.text == "# One\n\nA & B.\n- first\n- second\n\na | b\n\nEnd."
    assert found.title == "A report"


def test_text_in_odd_places_is_text_too() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>"
    body = (
        "<w:p>" + run.format("Kept") + "<w:ins>" + run.format(", inserted") + "</w:ins>"
        "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:hyperlink>" + run.format(", linked")
        + "</w:hyperlink><w:r><w:tab/><w:t>x</w:t><w:br/><w:t>y</w:t></w:r></w:p>"
        "<w:sdt><w:sdtContent>" + paragraph("Controlled.") + "</w:sdtContent></w:sdt>"
        "<w:p>" + run.format("Around") + "<w:r><w:txbxContent>" + paragraph("Boxed.") + "</w:txbxContent></w:r></w:p>"
    )  # fmt: skip
    note = f'<w:footnotes xmlns:w="{W}"><w:footnote w:id="2">{paragraph("A note.")}</w:footnote></w:footnotes>'
    found = docx.read(samples.docx(body, footnotes=note))
    assert found.text == "Kept, inserted, linked\tx\ny\n\nControlled.\n\nAround\n\nBoxed.\n\n[2] A note."


def test_a_book_reads_in_the_order_of_its_spine_without_its_contents() -> None:
    found = epub.read(samples.epub(["<h1>One</h1><p>First.</p>", "<h1>Two</h1><p>Second.</p>"]))
    assert found.text == "# One\n\nFirst.\n\n# Two\n\nSecond."
    assert found.title == "A Book"


def test_a_protected_book_is_refused_and_one_with_protected_fonts_is_not() -> None:
    encryption = '<encryption><EncryptedData><CipherReference URI="OPS/{}"/></EncryptedData></encryption>'
    with pytest.raises(DataError, match="protected"):
        epub.read(samples.epub(["<p>x</p>"], encryption=encryption.format("text/chapter%200.xhtml")))
    assert epub.read(samples.epub(["<p>x</p>"], encryption=encryption.format("font.otf"))).text == "x"


def test_an_archive_that_unpacks_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 20)
    bomb = samples.docx(paragraph("x" * (2 << 20)))
    assert len(bomb) < 10_000
    with pytest.raises(DataError, match="unpacks to more than 1 MB"):
        docx.read(bomb)


@pytest.mark.parametrize("where", ["<w:p><w:r><w:t>&j;</w:t></w:r></w:p>", '<w:p a="&j;"/>'])
def test_entities_do_not_grow(where: str) -> None:
    entities = '<!ENTITY a "lol">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    document = f'<!DOCTYPE d [{entities}]><w:document xmlns:w="{W}">{where}{paragraph("Text.")}</w:document>'
    content = samples.zipped({"word/document.xml": document})
    with pytest.raises(DataError, match="is damaged"):
        docx.read(content)


def test_no_file_of_this_machine_is_read() -> None:
    document = (
        f'<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]><w:document xmlns:w="{W}">'
        f"<w:p><w:r><w:t>Text.&f;</w:t></w:r></w:p></w:document>"
    )
    assert docx.read(samples.zipped({"word/document.xml": document})).text == "Text."


def test_a_missing_chapter_is_left_out_and_said() -> None:
    whole = samples.epub(["<p>One.</p>", "<p>Two.</p>"])
    with archive.unpacked(whole) as members:
        kept = {i.filename: members.read(i.filename) for i in members._file.infolist() if "chapter 1" not in i.filename}
    found = epub.read(samples.zipped(kept))
    assert found.text == "One."
    assert found.warnings == (
        "OPS/text/chapter 1.xhtml is left out: it is damaged: OPS/text/chapter 1.xhtml is missing.",
    )


def test_an_archive_with_a_password_is_said_to_be_encrypted() -> None:
    content = bytearray(samples.docx(paragraph("x")))
    with archive.unpacked(bytes(content)) as members:
        assert isinstance(members._file, zipfile.ZipFile)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption, in both lists of members
        start = content.find(mark)
        while start >= 0:
            content[start + at] |= 1
            start = content.find(mark, start + 1)
    with pytest.raises(DataError, match="encrypted"):
        docx.read(bytes(content))
