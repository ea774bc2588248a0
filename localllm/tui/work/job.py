"""Long work in a thread of its own: it belongs to the app, so that screens may come and go while it is done.

The thread runs a task's generator and folds its events into plain fields; screens look at them a few times a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

from localllm.errors import CancelledError, EngineError, LocalLLMError

Status = Literal["running", "stopping", "done", "stopped", "failed"]
Work = Callable[[threading.Event], Iterator[Any]]
"""A task's generator, given the event that cancels it."""
MOST_NOTES = 200


class Job:
    """One piece of work, from its start to its end. `take` of a subclass folds an event."""

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.status: Status = "running"
        self.error: LocalLLMError | None = None
        """Why it stopped or failed."""
        self.notes: list[str] = []
        """What to know about it, the last one last."""
        self.version = 0
        """Another one whenever there is something new to draw."""
        self._work = work
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        return self.status in ("done", "stopped", "failed")

    def start(self, ended: Callable[[Job], object]) -> None:
        """Begin; `ended` is called from the thread when it is over."""
        self._thread = threading.Thread(target=self._run, args=(ended,), name=f"job {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it soon; what is done by then is kept."""
        self._cancel.set()
        if self.status == "running":
            self.status = "stopping"
            self.version += 1

    def join(self) -> None:
        """Wait until it is over."""
        if self._thread is not None:
            self._thread.join()

    def take(self, event: Any) -> None:
        """Fold one event. Called from the thread."""

    def note(self, text: str) -> None:
        """Something to know, unless it was just said."""
        if text not in self.notes[-3:]:
            self.notes = [*self.notes, text][-MOST_NOTES:]

    def _run(self, ended: Callable[[Job], object]) -> None:
        try:
            for event in self._work(self._cancel):
                self.take(event)
                self.version += 1
            self.status = "done"
        except CancelledError as error:
            self.status, self.error = "stopped", error
        except LocalLLMError as error:
            self.status, self.error = "failed", error
        except Exception as error:  # the app is the last to hold the job, so not even a bug may end the app here
            what = f"Something unexpected went wrong: {type(error).__name__}: {error}"
            self.status, self.error = "failed", EngineError(what, "What was saved is kept; please report this.")
        self.version += 1
        with suppress(Exception):  # the app may be gone by now
            ended(self)
