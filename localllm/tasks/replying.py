"""A reply in a stored conversation: what is written so far is saved every second, so that a crash costs no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from localllm.engine.base import Event, Finished, TextDelta
from localllm.errors import LocalLLMError
from localllm.store.chats.records import ReplyStats, TurnState
from localllm.store.chats.store import ChatStore
from localllm.tasks.reading import Sourced
from localllm.types import FinishReason, Usage

SAVE_SECONDS = 0.7
"""Between two looks whether there is something to save; a save may take some of the second."""
STATES: dict[FinishReason, TurnState] = {"stop": "complete", "length": "cut", "cancelled": "stopped", "deadline": "cut"}


@dataclass(frozen=True)
class Replied:
    """How a reply ended."""

    turn: int
    text: str
    reason: FinishReason
    state: TurnState
    usage: Usage
    stats: ReplyStats


class Reply:
    """One turn on its way to the store. `run` drives it; what has been written is saved from a thread of its own."""

    def __init__(
        self,
        store: ChatStore,
        turn: int,
        text: str = "",
        clock: Callable[[], float] = time.monotonic,
        tokens: int = 0,
        source: str = "",
    ) -> None:
        """`text` is the beginning that is there already, `tokens` those that it took, and `source` where it is from."""
        self.turn = turn
        self.source = source
        self._store, self._clock = store, clock
        self._tokens = tokens
        self._pieces = [text]
        self._over = threading.Event()
        self.unsaved: LocalLLMError | None = None
        """Why the text so far could not be saved, the last time."""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def run(self, events: Iterator[Event | Sourced]) -> Iterator[Event | Replied]:
        """Pass the events on, and at last a Replied; where it is from is kept with the text.

        What an error, or the caller's leaving, breaks off is kept as a cut reply; without any text it is taken out.
        """
        started = self._clock()
        first = 0.0
        saver = threading.Thread(target=self._save_now_and_then, daemon=True)
        saver.start()
        replied: Replied | None = None
        try:
            for event in events:
                if isinstance(event, Sourced):
                    self.source = event.text
                    continue
                if isinstance(event, TextDelta):
                    first = first or self._clock() - started
                    self._pieces.append(event.text)
                if isinstance(event, Finished):
                    self._stop(saver)
                    replied = self._finish(event, first)
                yield event
            if replied is not None:
                yield replied
        finally:
            self._stop(saver)
            if replied is None:
                self._break_off()

    def _finish(self, event: Finished, first: float) -> Replied:
        text, state = self.text, STATES[event.reason]
        usage = event.usage
        stats = ReplyStats(self._tokens + usage.output_tokens, usage.tokens_per_second, first)
        self._store.turns.end(self.turn, text, state, stats, self.source)
        return Replied(self.turn, text, event.reason, state, usage, stats)

    def _break_off(self) -> None:
        if self.text:
            self._store.turns.end(self.turn, self.text, "cut", ReplyStats(), self.source)
        else:
            self._store.turns.discard(self.turn)

    def _save_now_and_then(self) -> None:
        saved = len(self._pieces)
        while not self._over.wait(SAVE_SECONDS):
            count = len(self._pieces)
            try:
                if count > saved:
                    self._store.turns.save(self.turn, self.text)
                    saved = count
                else:
                    self._store.turns.touch(self.turn)
                self.unsaved = None
            except LocalLLMError as error:  # the disk is full: the reply goes on, and may be saved later
                self.unsaved = error

    def _stop(self, saver: threading.Thread) -> None:
        self._over.set()
        saver.join()
