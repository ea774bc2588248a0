"""The slash commands: what they are called, what they take, and telling them from messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from localllm.errors import UsageError

COMMANDS: dict[str, tuple[str, str]] = {
    "adapter": ("NAME | off", "switch, keeping the conversation"),
    "system": ("TEXT | off", "set the system prompt for the next replies"),
    "clear": ("", "forget the conversation and start over"),
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
