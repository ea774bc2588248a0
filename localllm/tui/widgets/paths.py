"""Typing a path: it is completed as it is typed, or chosen from a tree."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Button, DirectoryTree, Input

from localllm.sanitize import sanitize_line


class PathInput(Input):
    """One path. Tab or the right arrow takes the completion that is shown."""

    def __init__(self, value: str = "", *, id: str, placeholder: str = "") -> None:
        super().__init__(value, placeholder=placeholder, suggester=PathSuggester(), id=id, compact=True)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "tab" and self.cursor_at_end and self._suggestion:
            event.stop()
            event.prevent_default()
            self.action_cursor_right()
        else:
            await super()._on_key(event)


class PathSuggester(Suggester):
    """The first name in the folder that goes on as the path does."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(complete, value)


def complete(typed: str) -> str | None:
    """The path, longer by what is missing of a name; folders end with a slash. None where nothing fits."""
    folder, _, begun = typed.rpartition("/")
    parent = Path(os.path.expanduser(f"{folder}/") if "/" in typed else ".")
    if not typed:
        return None
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(parent))
    except (OSError, ValueError):
        return None
    fitting = [name for name in names if name.startswith(begun) and name.isprintable()]
    fitting = [name for name in fitting if begun or not name.startswith(".")]
    if not fitting or not begun:
        return None
    return f"{folder}/{fitting[0]}" if "/" in typed else fitting[0]


class _Tree(DirectoryTree):
    """Names are cleaned for display; hidden ones are left out."""

    def process_label(self, label: object) -> Text:
        return Text(sanitize_line(str(label)))

    def filter_paths(self, paths):  # type: ignore[no-untyped-def]
        return [path for path in paths if not path.name.startswith(".")]


class BrowseScreen(ModalScreen[Path | None]):
    """Ends with the file or folder that was chosen, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(self, start: Path, title: str) -> None:
        super().__init__()
        self._start, self._title = start, title
        self._folder = start

    def compose(self) -> ComposeResult:
        with Vertical(classes="browse") as box:
            box.border_title = self._title
            box.border_subtitle = "Enter chooses a file · Esc goes back"
            yield _Tree(self._start)
            yield Button("Take this folder", id="take", compact=True)

    def on_mount(self) -> None:
        self.query_one(_Tree).focus()

    @on(DirectoryTree.FileSelected)
    def file(self, event: DirectoryTree.FileSelected) -> None:
        self.dismiss(event.path)

    @on(DirectoryTree.DirectorySelected)
    def folder(self, event: DirectoryTree.DirectorySelected) -> None:
        self._folder = event.path

    @on(Button.Pressed)
    def take(self) -> None:
        self.dismiss(self._folder)


def start_of(typed: str) -> Path:
    """The folder to begin browsing in."""
    path = Path(typed).expanduser() if typed.strip() else Path.cwd()
    return next((p for p in (path, path.parent, Path.cwd()) if p.is_dir()), Path("/"))
