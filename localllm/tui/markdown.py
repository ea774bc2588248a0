"""How a reply's Markdown is read: nothing the model wrote is hidden, and nothing in it can be clicked unseen."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token


def reply_parser() -> MarkdownIt:
    """GitHub-like Markdown in which HTML is shown as text, a line break is one, and links show their address.

    Definitions of addresses are shown where they stand: a block is read without those that follow.
    """
    parser = MarkdownIt("gfm-like", {"html": False, "linkify": False}).disable("reference")
    parser.core.ruler.push("reply", _rewrite_inlines)
    return parser


def _rewrite_inlines(state: StateCore) -> None:
    for token in state.tokens:
        if token.children:
            token.children = _rewrite(token.children)


def _rewrite(tokens: list[Token]) -> list[Token]:
    """Put each link's address after its text, and keep line breaks: models mean them."""
    result: list[Token] = []
    href, label = "", 0
    for token in tokens:
        if token.type == "link_open":
            href, label = str(token.attrs.get("href", "")), len(result)
        elif token.type == "link_close":
            shown = "".join(inner.content for inner in result[label:])
            if token.markup == "autolink":  # its label is the address with escapes undone
                result[label:] = [Token("text", "", 0, content=href)]
            elif shown != href:
                result.append(Token("text", "", 0, content=f" ({href})"))
        elif token.type == "image":
            result.append(Token("text", "", 0, content=f"[image: {token.content}] ({token.attrs.get('src', '')})"))
        elif token.type == "softbreak":
            result.append(Token("hardbreak", "br", 0))
        else:
            result.append(token)
    return result
