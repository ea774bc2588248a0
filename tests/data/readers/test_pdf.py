"""PDF files: every page's text, and a clear word on those that have none to give."""

from __future__ import annotations

import io
import threading
from importlib.util import find_spec
from pathlib import Path

import pypdf
import pytest

from localllm.data.readers import pdf
from localllm.errors import CancelledError, DataError
from tests.data.readers import samples


def rewritten(content: bytes, **encryption: object) -> bytes:
    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(content)))
    if encryption:
        writer.encrypt(**encryption)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_pages_come_in_order_with_the_title() -> None:
    found = pdf.read(samples.pdf(["The first page.\nIts second line.", "The last page."], title="On Pages"))
    assert found.text == "The first page.\nIts second line.\n\nThe last page."
    assert found.title == "On Pages"
    assert found.warnings == ()


def test_a_page_without_text_is_said() -> None:
    found = pdf.read(samples.pdf(["Text.", ""]))
    assert found.text == "Text."
    assert found.warnings == ("1 of 2 pages hold no text; scanned pages need OCR first",)


def test_a_scan_needs_ocr() -> None:
    with pytest.raises(DataError, match="no text on its 2 pages: scanned pages need OCR first"):
        pdf.read(samples.pdf(["", ""]))


def test_an_owner_password_alone_keeps_nobody_from_reading() -> None:
    locked = rewritten(samples.pdf(["Open to all."]), user_password="", owner_password="x", algorithm="RC4-128")
    assert pdf.read(locked).text == "Open to all."


def test_a_password_is_asked_for() -> None:
    locked = rewritten(samples.pdf(["Secret."]), user_password="x", algorithm="RC4-128")
    with pytest.raises(DataError, match="is encrypted with a password"):
        pdf.read(locked)


def test_aes_is_read_with_the_extra_and_names_it_without() -> None:
    """aes.pdf is `samples.pdf(["Open to all."])` as pypdf encrypts it with AES-256 and no user password."""
    content = Path(__file__).with_name("aes.pdf").read_bytes()
    if find_spec("cryptography"):
        assert pdf.read(content).text == "Open to all."
    else:
        with pytest.raises(DataError, match=r"AES.*pip install 'localllm\[documents\]'"):
            pdf.read(content)


@pytest.mark.parametrize("content", [b"%PDF-1.7\n", b"%PDF-1.4\n" + b"x" * 1000, samples.pdf(["Text."])[:60]])
def test_a_damaged_file_is_called_damaged(content: bytes) -> None:
    with pytest.raises(DataError, match=r"damaged PDF|without pages"):
        pdf.read(content)


def test_a_page_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million operators: minutes of work in a file of a hundred kilobytes."""
    monkeypatch.setattr(pdf, "PAGE_SECONDS", 1)
    content = rewritten(samples.pdf(["Before.", "Slow."]))
    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(content)))
    stream = pypdf.generic.DecodedStreamObject()
    stream.set_data(b"BT /F1 12 Tf (x) Tj ET\n" * 1_000_000)
    writer.pages[1][pypdf.generic.NameObject("/Contents")] = writer._add_object(stream.flate_encode())
    out = io.BytesIO()
    writer.write(out)
    found = pdf.read(out.getvalue())
    assert found.text == "Before."
    assert found.warnings == ("page 2 is left out: it took more than 1 s",)


def test_reading_is_stopped() -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        pdf.read(samples.pdf(["Text."]), cancel)


def test_a_reader_that_dies_is_an_error_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MODULE", "localllm.data.readers.base")  # ends without a word
    with pytest.raises(DataError, match="the reader ended with status 0"):
        pdf.read(samples.pdf(["Text."]))
