"""Replies of models that think aloud first: what was thought, and what was said."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
# Some templates write the opening tag into the prompt, so that a reply may begin inside of the thought.
_THOUGHT = re.compile(r"\A\s*(?:<think>(?P<tagged>.*?)|(?P<bare>(?:(?!<think>).)*?))</think>\s*", re.DOTALL)


def split_thought(text: str) -> tuple[str | None, str]:
    """(thought, the rest); the thought is None where there is none, and the rest empty while it goes on."""
    match = _THOUGHT.match(text)
    if match is not None:
        thought = match["tagged"] if match["tagged"] is not None else match["bare"]
        return thought.strip(), text[match.end() :]
    start = text.lstrip()
    if start.startswith(OPEN):
        return start[len(OPEN) :].lstrip("\n"), ""
    return None, text


def may_think(text: str) -> bool:
    """Whether a reply that has only begun may still turn out to begin with a thought."""
    start = text.lstrip()
    return OPEN.startswith(start[: len(OPEN)])
