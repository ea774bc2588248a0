"""The parent's side of the pipes to an engine's child process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from localllm import children
from localllm.engine import wire
from localllm.engine.worker_messages import Answer, Call, FromChild, Happened, Refusal, ToChild
from localllm.errors import EngineCrashedError
from localllm.sanitize import sanitize_line

_GRACE = 1.0  # seconds to end before it is killed
_READ = 1 << 16  # bytes at a time, as many as a pipe holds; for more, each read would map and unmap memory
_TAIL = 4096  # bytes of stderr that are looked at
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}  # it would start a debugger, and bury what was said before
_AGAIN = "Try again: the engine starts anew. If the same thing happens, fetch the model again or use another one."


class DiedError(Exception):
    """The child is gone, or going."""


class Link:
    """One child. Messages are sent from any thread, and received by one."""

    def __init__(self, module: str, *arguments: str, engine: str = "llama.cpp") -> None:
        """Start a child; `engine` is what computes in it, for what is said of a crash."""
        self._engine = engine
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._child = children.start(module, *arguments, stderr=self._stderr.fileno(), text=False, env=_ENVIRONMENT)
        self.pid: int = self._child.pid
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._pipes = (self._child.stdin, self._child.stdout)
        self._sending = threading.Lock()
        self._closed = False
        self._calls = 0
        self._in, self._out = (pipe.fileno() for pipe in self._pipes)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._buffer = bytearray()
        self._looked = 0  # bytes of the buffer that hold no line end

    def send(self, message: ToChild) -> None:
        """Raises DiedError, and UsageError for a message that is too long."""
        rest = memoryview(wire.encode(message))
        with self._sending:
            if self._closed:
                raise DiedError
            try:
                while rest:
                    rest = rest[os.write(self._in, rest) :]
            except OSError as error:
                raise DiedError from error

    def receive(self, seconds: float | None) -> FromChild | None:
        """The next message; None when there is none within so many seconds. What is no message is passed over.

        Raises DiedError when the child is gone and all that it said has been received.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            line = self._line()
            if line is None:
                left = None if end is None else max(0.0, end - time.monotonic()) * 1000
                if not self._poll.poll(left):
                    return None
                self._read()
                continue
            try:
                message: FromChild = wire.decode(line, FromChild)
            except ValueError:
                continue
            return message

    def ask(self, body: Any, happened: Callable[[Happened], None] | None = None) -> Any:
        """Have the child do something and wait for its answer; what happens meanwhile is passed on.

        Raises DiedError, and the LocalLLMError that the child refuses with.
        """
        self._calls += 1
        self.send(Call(self._calls, body))
        while True:
            message = self.receive(None)
            if isinstance(message, Happened):
                if happened is not None:
                    happened(message)
            elif isinstance(message, Answer) and message.number == self._calls:
                return message.value
            elif isinstance(message, Refusal) and message.number in (0, self._calls):
                raise message.error()

    def is_over(self) -> bool:
        """Whether the child has ended."""
        return self._child.poll() is not None

    def crash(self, doing: str) -> EngineCrashedError:
        """Why the child is gone, with the last thing it said; `doing` is what was asked of it."""
        while_doing = f" while it {doing}" if doing else ""
        if not self._ended():
            return EngineCrashedError(f"The engine did not answer any more{while_doing}.", _AGAIN)
        status, said = self._child.returncode, self._said()
        if status == -signal.SIGKILL:
            return EngineCrashedError(
                f"The engine's process was killed{while_doing}, most likely because the machine ran out of memory.",
                "Use a smaller --ctx or a smaller model, or close other programs; then try again.",
            )
        how = f"crashed ({name})" if (name := children.signal_name(status)) else f"ended with status {status}"
        return EngineCrashedError(f"{self._engine} {how}{while_doing}{f': {said}' if said else ''}.", _AGAIN)

    def close(self) -> None:
        """End the child; safe to call twice, and while another thread is sending."""
        children.stop(self._child, _GRACE)  # first, so that a blocked write comes back
        with self._sending:
            self._closed = True
            for stream in (*self._pipes, self._stderr):
                stream.close()

    def _line(self) -> bytes | None:
        """The next line that has been read; None when there is none."""
        at = self._buffer.find(b"\n", self._looked)
        if at < 0:
            self._looked = len(self._buffer)
            return None
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 1]
        self._looked = 0
        return line

    def _read(self) -> None:
        data = os.read(self._out, _READ)
        if not data:
            raise DiedError
        self._buffer += data
        if len(self._buffer) > wire.MAX_BYTES and b"\n" not in data:
            self._child.kill()
            raise DiedError

    def _ended(self) -> bool:
        """Whether the child has ended of itself, or soon does; it has ended in any case afterwards."""
        try:
            self._child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            return False
        return True

    def _said(self) -> str:
        """The last line on stderr, as it can be shown."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL))
        said = [
            line for line in map(sanitize_line, self._stderr.read().decode("utf-8", "replace").splitlines()) if line
        ]
        return said[-1].removeprefix("what(): ").rstrip(".")[:200] if said else ""
