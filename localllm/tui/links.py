"""What can be taken out of a reply: addresses and code blocks."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from localllm.sanitize import sanitize_line

_BARE = re.compile(r"\bhttps?://[^\s<>\"'`)\]]+")


def links_in(markdown: str) -> list[str]:
    """Addresses of the web in a text, each once, as they would be opened."""
    found: list[str] = []
    for token in MarkdownIt("gfm-like", {"html": False, "linkify": False}).parse(markdown):
        for child in token.children or []:
            if child.type == "link_open":
                found.append(str(child.attrs.get("href", "")))
    found += [address.rstrip(".,;:!?") for address in _BARE.findall(markdown)]
    clean = (sanitize_line(address) for address in found)
    return list(dict.fromkeys(address for address in clean if address.startswith(("http://", "https://"))))


def code_blocks(markdown: str) -> list[tuple[str, str]]:
    """(language, code) of every fence."""
    tokens = MarkdownIt("gfm-like", {"html": False, "linkify": False}).parse(markdown)
    return [(t.info.strip(), t.content.rstrip("\n")) for t in tokens if t.type in ("fence", "code_block")]
