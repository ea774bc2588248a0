"""Ends the training child with its parent also while native code holds the interpreter's lock.

`mx.distributed.init` waits for the other processes with the lock held, so the thread that looks at standard input
cannot run. Left alone, the child of a killed parent would wait on, with the run's lock and its port.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WATCH = """
import os, sys
while os.read(0, 4096):
    pass
if os.getppid() == int(sys.argv[1]):
    os.kill(os.getppid(), 9)
"""


@contextmanager
def ended_with_stdin() -> Iterator[None]:
    """Within this a process of its own kills this one when standard input closes."""
    command = [sys.executable, "-I", "-S", "-c", _WATCH, str(os.getpid())]
    quiet = subprocess.DEVNULL  # who waits for our output to end is not to wait for that of the guard
    guard = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        guard.kill()
        guard.wait()
