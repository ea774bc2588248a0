"""The pieces of a reply, gathered for the screen: cleaned, and a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

from textual.message import Message

from localllm.engine.base import Prefilled, TextDelta
from localllm.sanitize import Sanitizer
from localllm.tui.events import ReplyProgress

COALESCE_SECONDS = 0.08
"""Tokens that arrive within this time are drawn together: faster than the eye, and one layout instead of many."""


class Pieces:
    """Gathers the pieces of one reply and posts them in batches."""

    def __init__(self, clock: Callable[[], float], post: Callable[[Message], object], lane: int = 0) -> None:
        self._clock = clock
        self._post = post
        self._lane = lane
        self._sanitizer = Sanitizer()
        self._text: list[str] = []
        self._prompt = (0, 0)
        self._tokens = 0
        self._started = clock()
        self._sent = float("-inf")

    def add(self, event: Prefilled | TextDelta) -> None:
        """Take one event in, and post if it is time."""
        if isinstance(event, Prefilled):
            self._prompt = (event.done, event.total)
            self._started = self._clock()
        else:
            self._text.append(self._sanitizer.feed(event.text))
            self._tokens += len(event.tokens)
        if self._clock() - self._sent >= COALESCE_SECONDS:
            self._send()

    def flush(self) -> None:
        """Post what is left."""
        self._text.append(self._sanitizer.flush())
        self._send()

    def _send(self) -> None:
        self._sent = self._clock()
        elapsed = self._sent - self._started
        rate = self._tokens / elapsed if elapsed > 0 else 0.0
        self._post(ReplyProgress("".join(self._text), *self._prompt, self._tokens, rate, self._lane))
        self._text.clear()
