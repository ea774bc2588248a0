"""From the bytes of tokens to text that can be shown: whole characters, and nothing of a stop sequence."""

from __future__ import annotations

import codecs


class OutputText:
    """Feeds on token bytes; gives text as soon as it can no longer be the beginning of a stop sequence."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False
        """Whether a stop sequence has been met; it and what follows are dropped."""

    def feed(self, data: bytes) -> str:
        """Text that has become certain."""
        return self._release(self._decoder.decode(data))

    def flush(self) -> str:
        """What was held back, when the answer has ended for another reason."""
        text = self._release(self._decoder.decode(b"", True))
        if self.stopped:
            return text
        rest, self._held = self._held, ""
        return text + rest

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        cut = min((at for s in self._stop if (at := text.find(s)) >= 0), default=-1)
        if cut >= 0:
            self.stopped, self._held = True, ""
            return text[:cut]
        keep = max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
