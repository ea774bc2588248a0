"""Word documents (.docx): paragraphs, headings, lists, tables and notes, with what tracked changes would leave.

The XML is walked as it is, so that text in content controls, text boxes, links and insertions is there like any other.
"""

from __future__ import annotations

import re
from typing import Any

from localllm.data.readers.archive import Archive, unpacked
from localllm.data.readers.base import Extract

_BODY, _STYLES, _CORE = "word/document.xml", "word/styles.xml", "docProps/core.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_HEADING = re.compile(r"heading ([1-6])|(title)", re.I)
_LEFT_OUT = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "rPr", "sectPr", "tblPr", "trPr", "tcPr"))


def read(content: bytes) -> Extract:
    """The text of a document. Raises DataError when it is damaged."""
    with unpacked(content) as archive:
        reader = _Reader(_styles(archive))
        reader.blocks(archive.xml(_BODY))
        for name in _NOTES:
            if archive.has(name):
                reader.notes(archive.xml(name))
        title = _title(archive)
    return Extract(reader.text(), title)


def _local(element: Any) -> str:
    """The name of an element without its namespace; nothing for comments and entities."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _value(element: Any, name: str) -> str:
    """`w:val` of the first descendant of that name."""
    found = next(element.iter("{*}" + name), None)
    return "" if found is None else next((v for k, v in found.attrib.items() if k.endswith("}val")), "")


def _styles(archive: Archive) -> dict[str, int]:
    """Heading levels, and 0 for lists, by the id of the style, which is in the language of whoever wrote it."""
    if not archive.has(_STYLES):
        return {}
    levels = {}
    for style in archive.xml(_STYLES).iter("{*}style"):
        identifier = next((v for k, v in style.attrib.items() if k.endswith("}styleId")), "")
        if match := _HEADING.fullmatch(_value(style, "name")):
            levels[identifier] = int(match[1] or 1)
        elif next(style.iter("{*}numPr"), None) is not None:
            levels[identifier] = 0
    return levels


def _title(archive: Archive) -> str | None:
    if not archive.has(_CORE):
        return None
    found = next(archive.xml(_CORE).iter("{*}title"), None)
    return ((found.text or "").strip() or None) if found is not None else None


class _Reader:
    """Collects paragraphs; nothing here recurses, however deep the document is."""

    def __init__(self, styles: dict[str, int]) -> None:
        self._styles = styles
        self._out: list[str] = []

    def blocks(self, root: Any) -> None:
        """Every paragraph below `root` in order; a table's rows are lines with ` | ` between the cells."""
        stack = [root]
        while stack:
            element = stack.pop()
            name = _local(element)
            if name == "p":
                self._paragraph(element, stack)
            elif name == "tr":
                self._row(element)
            elif name not in _LEFT_OUT:
                if name == "tbl":
                    self._out.append("\n")
                stack.extend(reversed(element))

    def notes(self, root: Any) -> None:
        """Foot- or endnotes, after the text; separators between them are no notes."""
        for note in root:
            if any(k.endswith("}type") for k in note.attrib):
                continue
            text = " ".join("".join(_words(note)[0]).split())
            if text:
                self._out.append(f"\n[{next(iter(note.attrib.values()), '')}] {text}\n")

    def text(self) -> str:
        """The text so far, with at most one empty line between paragraphs."""
        return re.sub(r"\n{3,}", "\n\n", "".join(self._out)).strip()

    def _paragraph(self, element: Any, stack: list[Any]) -> None:
        pieces, boxes = _words(element)
        stack.extend(reversed(boxes))
        text = "".join(pieces).strip("\n ")
        if not text.strip():
            return
        properties = element[0] if len(element) and _local(element[0]) == "pPr" else None
        level = None if properties is None else self._styles.get(_value(properties, "pStyle"))
        if level:
            self._out.append(f"\n{'#' * level} {' '.join(text.split())}\n\n")
        elif level == 0 or (properties is not None and next(properties.iter("{*}numPr"), None) is not None):
            self._out.append(f"- {text}\n")
        else:
            self._out.append(f"\n{text}\n")

    def _row(self, element: Any) -> None:
        cells = [" ".join("".join(_words(cell)[0]).split()) for cell in element if _local(cell) in ("tc", "sdt")]
        if any(cells):
            self._out.append(" | ".join(cells).rstrip() + "\n")


def _words(root: Any) -> tuple[list[str], list[Any]]:
    """(pieces of text, text boxes) below an element; a box is read after the paragraph that it is tied to."""
    pieces: list[str] = []
    boxes: list[Any] = []
    stack = list(reversed(root))
    while stack:
        element = stack.pop()
        name = _local(element)
        if name == "t":
            pieces.append(element.text or "")
        elif name == "tab":
            pieces.append("\t")
        elif name in ("br", "cr"):
            pieces.append("\n")
        elif name == "noBreakHyphen":
            pieces.append("-")
        elif name == "txbxContent":
            boxes.append(element)
        elif name not in _LEFT_OUT and name != "pPr":
            pieces.append(" " if name == "p" and pieces else "")
            stack.extend(reversed(element))
    return pieces, boxes
