"""HTML as a reader sees it: headings, paragraphs, lists and tables as plain text, without menus, scripts and styles."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from importlib import import_module
from itertools import islice
from typing import Any

from localllm.data.readers.base import Extract
from localllm.data.readers.text import decode

_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
_XML = re.compile(rb"\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)")
_LEFT_OUT = frozenset((
    "head", "script", "style", "noscript", "template", "nav", "svg", "iframe", "object", "embed", "canvas", "audio",
    "video", "select", "button", "rt", "rp",
))  # fmt: skip
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "details", "div", "dl",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main",
    "ol", "p", "pre", "section", "summary", "table", "ul",
))  # fmt: skip
_TIGHT = frozenset(("li", "tr", "td", "th", "dd", "dt", "tbody", "thead", "tfoot"))
_MARKS = {"li": "- "} | {f"h{level}": "#" * level + " " for level in range(1, 7)}
_CELLS = ("td", "th")
_PARTS = ("table", "ul", "ol", "dl", "pre", "h1", "h2", "h3", "h4", "h5", "h6")
_LONGEST_CELL = 1000  # characters; more is a column of a page


def read(content: bytes) -> Extract:
    """The text of a page, headings written as in Markdown. Raises DataError for a binary file."""
    text, encoding, warnings = _decoded(content)
    found = extract(text)
    return replace(found, encoding=encoding, warnings=warnings + found.warnings)


def extract(markup: str) -> Extract:
    """The text and title of markup, however broken it is."""
    html = import_module("lxml.html")  # it comes without types
    etree = import_module("lxml.etree")
    # huge_tree: else what is nested deeper than 256 levels would be left out without a word
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True, no_network=True)
    data = markup.replace("\0", "").encode("utf-8", "replace")
    try:
        root = html.document_fromstring(data, parser=parser) if data.strip() else None
    except (etree.LxmlError, ValueError):  # no elements at all
        root = None
    if root is None:
        return Extract("")
    deep = any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log)
    warnings = ("what is nested deeper than 2048 levels is left out",) if deep else ()
    title = " ".join((root.findtext(".//title") or root.findtext(".//h1") or "").split())
    return Extract(_text(root, etree), title or None, warnings=warnings)


def _decoded(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Decoded as the page itself says, where what it says is possible."""
    declared = _XML.match(content[:1024]) or _META.search(content[:4096])
    if declared and not content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = declared[1].decode("ascii", "replace").lower()
        name = "cp1252" if name in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii") else name  # as browsers do
        try:
            text = content.decode(name)
            if "\0" not in text:
                return text, codecs.lookup(name).name, ()
        except (LookupError, UnicodeError):  # no such encoding, or the page is wrong about itself
            pass
    return decode(content)


def _text(root: Any, etree: Any) -> str:
    writer = _Writer()
    walker = etree.iterwalk(root, events=("start", "end"))
    taken = None
    for event, element in walker:
        if event == "start":
            row = _row(element, etree) if element.tag == "tr" else None
            if row is not None:
                writer.line(row)
                taken = element
            if taken is element or _left_out(element):
                walker.skip_subtree()
            else:
                writer.start(element)
            continue
        if taken is element:
            taken = None
        elif not _left_out(element):
            writer.end(element)
        if element is not root:
            writer.write(element.tail)
    return writer.text()


def _left_out(element: Any) -> bool:
    return element.tag in _LEFT_OUT or "hidden" in element.attrib


def _row(element: Any, etree: Any) -> str | None:
    """A row of a table of data as one line; None where a table is only a way to lay out a page."""
    cells = list(element)
    if len(cells) < 2 or any(cell.tag not in _CELLS or _has_parts(cell) for cell in cells):
        return None
    texts = [" ".join(_text(cell, etree).split()) for cell in cells]
    return " | ".join(texts).rstrip() if max(map(len, texts)) <= _LONGEST_CELL else None


def _has_parts(cell: Any) -> bool:
    """Whether a cell holds more than a paragraph."""
    return next(cell.iter(*_PARTS), None) is not None or len(list(islice(cell.iter("p", "div"), 2))) > 1


class _Writer:
    """Text with runs of blanks made one, and line ends where blocks begin and end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._breaks = 0
        """Line ends to write before the next text."""
        self._space = False
        self._mark = ""
        """What the next text begins with: the sign of a heading or a list item."""
        self._pre = 0

    def start(self, element: Any) -> None:
        tag = element.tag
        if tag == "br":
            self._breaks, self._space = min(2, self._breaks + 1), False
        elif lines := _lines(element):
            self._break(lines)
            self._mark = _MARKS.get(tag, self._mark)
            self._pre += tag == "pre"
        self.write(element.text)

    def end(self, element: Any) -> None:
        if lines := _lines(element):
            self._break(lines)
            self._pre -= element.tag == "pre"
            self._mark = ""

    def line(self, text: str) -> None:
        """A line by itself."""
        self._break(1)
        if text:
            self._begin(blank=False)
            self._parts.append(text)
            self._break(1)

    def write(self, text: str | None) -> None:
        if not text:
            return
        if self._pre:
            self._begin(blank=False)
            self._parts.append(text)
            return
        words = text.split()
        if words:
            self._begin(blank=self._space or text[0].isspace())
            self._parts.append(" ".join(words))
        self._space = text[-1].isspace() or (self._space and not words)

    def text(self) -> str:
        """All of it, without blank lines at its ends."""
        return "".join(self._parts).strip()

    def _begin(self, *, blank: bool) -> None:
        if self._breaks and self._parts:
            self._parts.append("\n" * self._breaks)
        elif blank and self._parts and not self._mark:
            self._parts.append(" ")
        self._parts.append(self._mark)
        self._breaks, self._space, self._mark = 0, False, ""

    def _break(self, lines: int) -> None:
        self._breaks, self._space = max(self._breaks, lines), False


def _lines(element: Any) -> int:
    """Line ends around an element: none within a line, one for items and rows, two, an empty line, for blocks."""
    tag = element.tag
    if tag in _TIGHT or (tag in ("ul", "ol") and getattr(element.getparent(), "tag", "") == "li"):
        return 1
    return 2 if tag in _BLOCKS else 0
