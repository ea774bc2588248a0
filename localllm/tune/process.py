"""The parent's side of the training child: start it, pass on what it says, and end it whatever happens."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from localllm import children
from localllm.errors import TrainingError
from localllm.tune.events import Failed, TuneEvent, decode

STDERR = "stderr.txt"
_GRACE = 5.0  # seconds to end after SIGTERM


def run_job(folder: Path, cancel: threading.Event | None = None, share: Collection[int] = ()) -> Iterator[TuneEvent]:
    """Do the job in `folder` (see tune.job) in a child process and yield its events.

    `share` are open files that the child is to hold open too, as long as it lives.

    The child is gone when this ends, for whatever reason. Raises CancelledError when `cancel` was set, and
    TrainingError with the cause when the child failed, crashed or was killed.
    """
    failed: Failed | None = None
    with _child(folder, share) as child:
        for line in children.lines(child, cancel, "Stopped; nothing was kept."):
            event = _event(line)
            if isinstance(event, Failed):
                failed = event
            elif event is not None:
                yield event
        status = child.wait()
    if failed is not None:
        raise TrainingError(failed.message, failed.hint)
    if status != 0:
        raise _crash(status, folder / STDERR)


@contextmanager
def _child(folder: Path, share: Collection[int] = ()) -> Iterator[subprocess.Popen[str]]:
    with (
        (folder / STDERR).open("wb") as stderr,
        children.running("localllm.tune", str(folder), stderr=stderr, grace=_GRACE, share=share) as child,
    ):
        yield child


def _event(line: str) -> TuneEvent | None:
    try:
        return decode(line)
    except (ValueError, KeyError, TypeError):
        return None  # something native wrote to stdout


def _crash(status: int, stderr: Path) -> TrainingError:
    if status == -signal.SIGKILL:
        return TrainingError(
            "The training process was killed, most likely because the machine ran out of memory.",
            "Use a smaller --batch-size, --max-length or --rank, or close other programs.",
        )
    said = stderr.read_text("utf-8", "replace").strip().splitlines() if stderr.exists() else []
    how = f"crashed ({children.signal_name(status)})" if status < 0 else f"ended with status {status}"
    last = said[-1] if said else "it said nothing"
    return TrainingError(f"The training process {how}: {last}.", "Run `localllm doctor`.")
