"""Child processes of this program: started as one of its modules, followed line by line, ended with it.

A child runs in a session of its own, so that Ctrl-C reaches only the parent, and has a pipe as its standard input. The
system closes that pipe when the parent ends, however it ends, and the child then ends itself (`end_with_parent`).
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from localllm.errors import CancelledError

_POLL = 0.1  # seconds between looks at `cancel`


def start(
    module: str,
    *arguments: str,
    stderr: IO[bytes] | int,
    share: Collection[int] = (),
    text: bool = True,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[Any]:
    """`python -m module arguments` with pipes for its input and output.

    `share` are open files that the child holds open too; `env` are additions to the environment. Without `text` the
    pipes are of bytes and unbuffered.
    """
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # -P: modules that lie in the person's folder are not the program's
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | {"PYTHONPATH": path} | dict(env or {}),
        text=text,
        bufsize=-1 if text else 0,
        start_new_session=True,
        pass_fds=share,
    )


def stop(child: subprocess.Popen[Any], grace: float) -> None:
    """Have the child gone: asked to end, and after `grace` seconds killed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def end(child: subprocess.Popen[Any], grace: float) -> None:
    """Have the child gone (see `stop`) and its pipes closed."""
    stop(child, grace)
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def running(
    module: str, *arguments: str, stderr: IO[bytes] | int, grace: float, share: Collection[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A child that is gone afterwards, for whatever reason; see `start` and `end`."""
    child = start(module, *arguments, stderr=stderr, share=share)
    try:
        yield child
    finally:
        end(child, grace)


def lines(child: subprocess.Popen[str], cancel: threading.Event | None, stopped: str) -> Iterator[str]:
    """What the child writes, up to its end. Raises CancelledError, saying `stopped`, soon after `cancel` is set."""
    arrived: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        with suppress(ValueError):  # closed while reading: nobody listens any more
            for line in child.stdout:
                arrived.put(line)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        if cancel is not None and cancel.is_set():
            raise CancelledError(stopped)
        try:
            line = arrived.get(timeout=_POLL)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def signal_name(status: int) -> str:
    """Which signal ended a child of this status, as in SIGABRT; empty when it ended by itself."""
    if status >= 0:
        return ""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def end_with_parent(status: int) -> None:
    """For a child: end at once, with this status, when the standard input does. It must read nothing else from it."""

    def wait() -> None:
        # os.read instead of sys.stdin: a lock held by a thread at exit would be fatal
        while os.read(0, 4096):
            pass
        os._exit(status)

    threading.Thread(target=wait, daemon=True).start()
