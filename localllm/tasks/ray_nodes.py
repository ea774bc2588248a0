"""Work spread over the machines of a Ray cluster: one worker on each, one piece after another.

Ray Data does it in a child process (ray_child.py), and the results come to this process, which alone writes them.
Whatever Ray fails at (a machine was lost, a process was killed, nothing comes any more) ends that round: the child is
ended, and all that it had on the cluster with it, and another one begins with what has no result yet, on the machines
that are there. What a worker fails at comes back as a result of its own kind, so that the two cannot be confused.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from localllm import children
from localllm.errors import EngineError, UsageError

_POLL = 0.1  # seconds between looks at `cancel`
_SILENCE = 60.0
"""Seconds without a sign of life, which comes every second, after which a child is given up."""
_ROUNDS = 6
"""That may end in a row without a result. Ray takes some twenty seconds to find out that a machine is gone, and until
then gives it work; the waits between them add up to more."""
_LARGEST_PIECE, _LEAST_PIECES = 32, 16
_GRACE = 5.0  # seconds for a child to leave the cluster


@dataclass(frozen=True)
class Work:
    """What is done on each machine: `function` names what makes a worker there, as module:name.

    It is called with `arguments`, which have to be JSON, and gives a function from a list of texts to that of their
    results. It may raise LocalLLMError, and so may the worker; that ends the whole work.
    """

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Cluster:
    """A Ray cluster that runs already."""

    child: ClassVar[str] = "localllm.tasks.ray_child"
    """The module that does a round."""

    def __init__(self, address: str = "auto") -> None:
        """Raises UsageError where Ray is not installed."""
        if find_spec("ray") is None:
            raise UsageError("Ray is not installed.", "Install it with: pip install 'localllm[ray]'")
        self._address = address

    def spread(
        self, items: Sequence[str], work: Work, *, piece: int = 16, cancel: threading.Event | None = None
    ) -> Iterator[tuple[int, str]]:
        """The result of every item with its number, as pieces of at most `piece` items finish.

        Ends early once `cancel` is set. Raises UsageError where there is no cluster, EngineError where a worker raises
        or cannot be started, and where Ray fails again and again.
        """
        missing = dict(enumerate(items))
        cancel = cancel or threading.Event()
        fruitless = 0
        while missing and not cancel.is_set():
            left = len(missing)
            try:
                with _Round(self.child, self._address, missing, work, piece) as results:
                    yield from results.take(missing, cancel)
            except _RoundError as error:
                fruitless = 0 if len(missing) < left else fruitless + 1
                if fruitless == _ROUNDS:
                    raise EngineError(f"The cluster fails: {error}.", "Run it again to go on.") from error
                cancel.wait(2**fruitless if fruitless else 0)


def piece_for(items: int) -> int:
    """Items of a piece: many, since a worker begins the next only when all are done, but not all in a few pieces."""
    return max(1, min(_LARGEST_PIECE, items // _LEAST_PIECES))


class _RoundError(Exception):
    """Ray failed, and not the work."""


class _Round:
    """One child, and what it sends."""

    def __init__(self, child: str, address: str, missing: dict[int, str], work: Work, piece: int) -> None:
        self._child = children.start(child, stderr=subprocess.DEVNULL)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        order = {"address": address, "piece": piece, **asdict(work)}
        rows = [json.dumps(row) for row in (order, *({"number": n, "item": item} for n, item in missing.items()))]
        threading.Thread(target=self._talk, args=(rows,), daemon=True).start()

    def __enter__(self) -> _Round:
        return self

    def __exit__(self, *_: Any) -> None:
        children.stop(self._child, _GRACE)

    def take(self, missing: dict[int, str], cancel: threading.Event) -> Iterator[tuple[int, str]]:
        """Results of what is missing, taking it out. Raises _RoundError where Ray fails, and what `spread` raises."""
        heard = time.monotonic()
        while missing and not cancel.is_set():
            try:
                line = self._lines.get(timeout=_POLL)
            except queue.Empty:
                if time.monotonic() - heard > _SILENCE:
                    raise _RoundError("nothing is heard of it any more") from None
                continue
            heard = time.monotonic()
            if line is None:
                raise _RoundError("the process that speaks with it has ended")
            message = json.loads(line)
            _complain(message)
            if "number" in message and missing.pop(message["number"], None) is not None:
                yield message["number"], message["result"]

    def _talk(self, rows: list[str]) -> None:
        """Say what is to be done, then pass on what comes; in a thread, since either may block."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(OSError, ValueError):  # the child is gone, or its pipes are closed
            for row in rows:
                self._child.stdin.write(f"{row}\n")
            self._child.stdin.write("\n")
            self._child.stdin.flush()  # it stays open: its end is the end of the child
            for line in self._child.stdout:
                self._lines.put(line)
        self._lines.put(None)


def _complain(message: dict[str, Any]) -> None:
    """Raise what a message of the child tells."""
    if reason := message.get("no_cluster"):
        hint = "Start one with `ray start --head`, or name its address with --ray ADDRESS."
        raise UsageError(f"There is no Ray cluster here that answers ({reason}).", hint)
    if error := message.get("error"):
        raise EngineError(*error)
    if reason := message.get("failed"):
        raise _RoundError(reason)
