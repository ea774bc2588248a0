"""HTML as a reader sees it: headings, paragraphs, lists and tables as plain text, without menus, scripts and styles."""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from importlib import import_module
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
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "main", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "tfoot", "thead", "ul",
))  # fmt: skip
_TIGHT = frozenset(("li", "tr", "dd", "dt", "tbody", "thead", "tfoot"))
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_CELLS = ("td", "th")
_STRUCTURE = _BLOCKS | {"li"} | _HEADINGS.keys()


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
    for event, element in walker:
        left_out = element.tag in _LEFT_OUT or "hidden" in element.attrib
        if event == "start":
            walker.skip_subtree() if left_out else writer.start(element)
        else:
            if not left_out:
                writer.end(element)
            writer.write(element.tail)
    return writer.text()


class _Writer:
    """Text with runs of blanks made one, and line ends where blocks begin and end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._breaks = 0
        """Line ends to write before the next text."""
        self._space = False
        self._mark = ""
        """What the next text begins with: the sign of a heading or a list item."""
        self._bars = 0
        """Borders of cells to write before the next text."""
        self._in_row = False
        """Whether something of the row has been written."""
        self._pre = 0
        self._inline: list[bool] = []
        """Of the cells around, whether each is written on one line."""
        self._cells = 0

    def start(self, element: Any) -> None:
        tag = element.tag
        if tag in _CELLS:
            self._inline.append(sum(child.tag in _STRUCTURE for child in element) <= 1)
            self._cells += 1
            self._bars += self._cells > 1 and self._inline[-1]
        elif tag == "br":
            self._break(min(2, self._breaks + 1))
        elif tag in _HEADINGS:
            self._break(2)
            self._mark = _HEADINGS[tag]
        elif tag in _STRUCTURE or tag in _TIGHT:
            self._break(_lines(element))
            if tag == "tr":
                self._cells, self._bars, self._in_row = 0, 0, False
            self._mark = "- " if tag == "li" else self._mark
            self._pre += tag == "pre"
        self.write(element.text)

    def end(self, element: Any) -> None:
        tag = element.tag
        if tag in _CELLS:
            if self._inline and not self._inline.pop():
                self._break(1)
        elif tag in _STRUCTURE or tag in _TIGHT:
            self._break(_lines(element))
            self._pre -= tag == "pre"
            self._mark = ""

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
        self._space = self._space or text[-1].isspace() if not words else text[-1].isspace()

    def text(self) -> str:
        """All of it, without blank lines at its ends."""
        return "".join(self._parts).strip()

    def _begin(self, *, blank: bool) -> None:
        if self._bars and self._in_row:
            self._parts.append(" |" * self._bars + " ")
        elif self._breaks and self._parts:
            self._parts.append("\n" * self._breaks)
        elif blank and self._parts and not self._mark:
            self._parts.append(" ")
        if self._bars and not self._in_row:
            self._parts.append("| " * self._bars)
        self._parts.append(self._mark)
        self._breaks, self._space, self._mark, self._bars, self._in_row = 0, False, "", 0, True

    def _break(self, lines: int) -> None:
        if self._inline and self._inline[-1]:
            self._space = True
        else:
            self._breaks, self._space = max(self._breaks, lines), False


def _lines(element: Any) -> int:
    """Line ends around a block: two make an empty line."""
    nested = element.tag in ("ul", "ol") and getattr(element.getparent(), "tag", "") == "li"
    return 1 if nested or element.tag in _TIGHT else 2
