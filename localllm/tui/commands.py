"""The slash commands: what they are called, what they take, and telling them from messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from localllm.errors import UsageError

COMMANDS: dict[str, tuple[str, str]] = {
    "adapter": ("NAME | off", "switch, keeping the conversation"),
    "model": ("NAME", "go on with another model"),
    "compare": ("NAME | off", "base and adapter side by side"),
    "system": ("TEXT | off", "the system prompt of the next replies"),
    "new": ("", "another conversation; this one is kept"),
    "clear": ("", "the same as /new"),
    "handbook": ("WORDS | on | off", "read in it; or look questions up, or not"),
    "title": ("TEXT", "rename the conversation"),
    "retry": ("", "write the last reply again"),
    "continue": ("", "go on with a reply that was cut"),
    "context": ("", "how full it is, and what to leave out"),
    "settings": ("", "sampling, system prompt, JSON schema"),
    "export": ("FILE.md | .json", "this conversation to a file"),
    "delete": ("", "the conversation; /undo brings it back"),
    "undo": ("", "bring back what was deleted last"),
    "help": ("", "keys and commands"),
    "quit": ("", "leave"),
}
"""Name -> (argument, what it does)."""

_COMMAND = re.compile(r"/([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command as typed; `argument` is empty when there is none."""

    name: str
    argument: str


def parse(text: str) -> Command | None:
    """The command that `text` is, or None for a message. Raises UsageError for an unknown one.

    Only a slash and letters up to a space or the end make a command, so that a message may start with a path.
    """
    match = _COMMAND.fullmatch(text.strip())
    if match is None:
        return None
    name, argument = match[1].lower(), (match[2] or "").strip()
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean /{near[0]}?" if near else "/help lists the commands."
        raise UsageError(f"There is no command /{name}.", f"{hint} In a message, put a word before it.")
    return Command(name, argument)
