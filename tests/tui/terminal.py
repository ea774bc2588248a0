"""A program in a pseudo-terminal, with a terminal emulator as the judge of what it drew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pyte

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """Runs a command in `columns` x `lines` cells; `screen` is what a person would see, `raw` every byte as text."""

    def __init__(
        self,
        command: list[str],
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ):
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self._screen)
        self.raw = ""
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(env or {})}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):  # the last two would speak louder than the size of the terminal
            environment.pop(name, None)
        self.child = pexpect.spawn(
            command[0], command[1:], dimensions=(lines, columns), encoding="utf-8", env=environment, cwd=str(cwd)
        )

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def title(self) -> str:
        """Of the terminal's window, if the program set one."""
        return str(self._screen.title)

    def send(self, keys: str) -> None:
        self.child.send(keys)

    def wait_for(self, condition: str | Callable[[str], bool], seconds: float = 30.0) -> None:
        """Read until the screen shows a text, or a condition on it is true."""
        met = (lambda screen: condition in screen) if isinstance(condition, str) else condition
        end = time.monotonic() + seconds
        while not met(self.screen):
            assert time.monotonic() < end, f"not in time:\n{self.screen}"
            self._read()

    def wait_for_exit(self, seconds: float = 10.0) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"still running:\n{self.screen}"
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -1)

    def _read(self) -> bool:
        try:
            text = self.child.read_nonblocking(65536, timeout=0.1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += text
        # pyte does not know the private-parameter forms of CSI (such as the kitty keyboard's) and would print them
        self._stream.feed(text)
        return True

    def restored(self) -> bool:
        """Whether the program left the alternate screen, showed the cursor and let go of mouse and paste modes."""
        modes = ("1049", "25", "1000", "1003", "1006", "2004")
        on_at_the_end = {"1049": "l", "25": "h", "1000": "l", "1003": "l", "1006": "l", "2004": "l"}
        for mode in modes:
            last = max(("h", "l"), key=lambda state: self.raw.rfind(f"\x1b[?{mode}{state}"))
            if f"\x1b[?{mode}" in self.raw and last != on_at_the_end[mode]:
                return False
        return "\x1b[?1049l" in self.raw
