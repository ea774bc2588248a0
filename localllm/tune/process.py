"""The parent's side of the training child: start it, pass on what it says, and end it whatever happens."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from localllm.errors import CancelledError, TrainingError
from localllm.tune.events import Failed, TuneEvent, decode

STDERR = "stderr.txt"
_POLL = 0.1  # seconds between looks at `cancel`
_GRACE = 5.0  # seconds to end after SIGTERM


def run_job(folder: Path, cancel: threading.Event | None = None, share: Collection[int] = ()) -> Iterator[TuneEvent]:
    """Do the job in `folder` (see tune.job) in a child process and yield its events.

    `share` are open files that the child is to hold open too, as long as it lives.

    The child is gone when this ends, for whatever reason. Raises CancelledError when `cancel` was set, and
    TrainingError with the cause when the child failed, crashed or was killed.
    """
    failed: Failed | None = None
    with _child(folder, share) as child:
        lines: queue.Queue[str | None] = queue.Queue()
        assert child.stdout is not None
        threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True).start()
        while True:
            if cancel is not None and cancel.is_set():
                raise CancelledError("Stopped; nothing was kept.")
            try:
                line = lines.get(timeout=_POLL)
            except queue.Empty:
                continue
            if line is None:
                break
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
    """The running child; it is in a session of its own, so that Ctrl-C reaches only the parent."""
    root = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    # -P: modules that lie in the person's folder are not the program's
    command = [sys.executable, "-P", "-m", "localllm.tune", str(folder)]
    with (folder / STDERR).open("wb") as stderr:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, text=True,
            start_new_session=True, pass_fds=share,
        )  # fmt: skip
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def _read_lines(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    try:
        for line in stream:
            lines.put(line)
    except ValueError:  # closed while reading: the parent has stopped listening
        pass
    lines.put(None)


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
    how = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
    last = said[-1] if said else "it said nothing"
    return TrainingError(f"The training process {how}: {last}.", "Run `localllm doctor`.")
