"""EPUB books: the chapters in the order of the book's spine, each read as HTML."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import unquote

from localllm.data.readers import html
from localllm.data.readers.archive import Archive, unpacked
from localllm.data.readers.base import Extract
from localllm.errors import DataError

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "")
_MAX_WARNINGS = 5


def read(content: bytes) -> Extract:
    """A book's text. Raises DataError when it is damaged or protected against reading."""
    with unpacked(content) as archive:
        package = _package_name(archive)
        root = archive.xml(package)
        chapters, warnings = [], []
        locked = _encrypted(archive)
        for name in _spine(root, posixpath.dirname(package)):
            if name in locked:
                message = "is protected (DRM): its chapters are encrypted."
                raise DataError(message, "Give a copy without protection.")
            try:
                chapters.append(html.read(archive.read(name)).text)
            except DataError as error:
                warnings.append(f"{name} is left out: it {error.message}")
    title = next((" ".join(e.itertext()).strip() for e in root.iter("{*}title")), "")
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    return Extract(text, title or None, warnings=tuple(warnings[:_MAX_WARNINGS]))


def _package_name(archive: Archive) -> str:
    """The member that lists the book's parts."""
    names = [e.get("full-path") for e in archive.xml(_CONTAINER).iter("{*}rootfile")]
    if not names or not names[0]:
        raise DataError("is a damaged EPUB: it does not say where its contents are.", "Fetch it again.")
    return str(names[0])


def _spine(root: Any, folder: str) -> list[str]:
    """Members of the chapters in reading order, without the table of contents."""
    items = {e.get("id"): e for e in root.iter("{*}item")}
    names = []
    for reference in root.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type", "") not in _PAGES or "nav" in item.get("properties", "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        if name not in names:
            names.append(name)
    return names


def _encrypted(archive: Archive) -> set[str]:
    """Members that cannot be read; fonts are often among them in books that are free to read."""
    if not archive.has(_ENCRYPTION):
        return set()
    references = archive.xml(_ENCRYPTION).iter("{*}CipherReference")
    return {posixpath.normpath(unquote(e.get("URI", ""))) for e in references}
