"""Which names of files and revisions may become paths on this disk."""

from __future__ import annotations

import re
import unicodedata

LONGEST, DEEPEST = 255, 32
"""Bytes of one part of a path, which most file systems allow, and parts."""
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that are devices on Windows, where the cache may be read later."""
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Classes of characters that act on a terminal, cannot be seen, or cannot be written."""


def is_safe(path: str) -> bool:
    """Whether a repository's path stays inside the folder that it is joined to, on every system, and can be shown."""
    parts = path.split("/")
    return len(parts) <= DEEPEST and all(map(_is_safe_part, parts))


def _is_safe_part(part: str) -> bool:
    if part in ("", ".", "..") or part != part.strip() or part.endswith(".") or _RESERVED.fullmatch(part):
        return False
    if any(character in '\\:*?"<>|' or unicodedata.category(character) in _HIDDEN for character in part):
        return False
    return len(part.encode()) <= LONGEST
