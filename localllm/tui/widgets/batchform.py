"""The form of the batch screen: which documents, where the summaries go, and how they should be."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Label, Select, TextArea

from localllm.errors import UsageError
from localllm.sanitize import sanitize_line
from localllm.tasks.summary_here import BatchRequest
from localllm.tasks.summary_prompts import LENGTHS, STYLES, Wish
from localllm.tui.widgets.paths import PathInput
from localllm.tui.widgets.trainingform import YES, flag

FREE = "as it comes"
NO_ADAPTER = "\0"


class BatchForm(VerticalScroll):
    """Everything is optional but the documents."""

    can_focus = False

    def __init__(self, models: list[str], model: str, adapters: list[str]) -> None:
        super().__init__(id="form")
        self._models, self._model, self._adapters = models, model, adapters

    def compose(self) -> ComposeResult:
        with Horizontal(classes="paths-row"):
            yield Label("Documents", classes="name")
            yield TextArea(
                id="paths", compact=True, tab_behavior="focus", placeholder="files, folders, *.md: one a line"
            )
            yield Button("Browse", id="browse", compact=True)
        with Horizontal(classes="row"):
            yield Label("Summaries to", classes="name")
            yield PathInput("summaries.jsonl", id="out")
        with Horizontal(classes="row"):
            yield Label("Model", classes="name")
            value = self._model if self._model in self._models else self._models[0]
            yield _select("model", [(name, name) for name in self._models], value)
        with Horizontal(classes="row"):
            yield Label("Adapter", classes="name")
            yield _select("adapter", [("none", NO_ADAPTER), *((name, name) for name in self._adapters)], NO_ADAPTER)
        with Horizontal(classes="row"):
            yield Label("Style", classes="name")
            yield _select("style", [(FREE, ""), *((name, name) for name in STYLES)], "")
        with Horizontal(classes="row"):
            yield Label("Length", classes="name")
            yield _select("length", [(FREE, ""), *((name, name) for name in LENGTHS)], "")
        for name, label, meaning in (("focus", "Focus", "a question"), ("language", "Language", "such as German")):
            with Horizontal(classes="row"):
                yield Label(label, classes="name")
                yield Input(id=name, compact=True, placeholder=meaning, classes="long")
        yield flag("retry_failed", "Try again", "documents that failed in an earlier run")
        yield flag("redo", "Replace", "summaries made with other settings")

    def request(self) -> BatchRequest:
        """What is asked for. Raises UsageError."""
        paths = tuple(map(_path, filter(str.strip, self.query_one("#paths", TextArea).text.splitlines())))
        if not paths:
            raise UsageError("There are no documents yet.", "Name files, folders or patterns, one a line, or browse.")
        out = self.query_one("#out", Input).value.strip()
        if not out:
            raise UsageError("There is no place for the summaries.", "Name a .jsonl, .md or .csv file.")
        chosen = {
            name: str(self.query_one(f"#{name}", Select).value) for name in ("model", "adapter", "style", "length")
        }
        typed = {name: self.query_one(f"#{name}", Input).value.strip() or None for name in ("focus", "language")}
        return BatchRequest(
            paths=paths, out=Path(out).expanduser(), model=chosen["model"],
            adapter=None if chosen["adapter"] == NO_ADAPTER else chosen["adapter"],
            wish=Wish(chosen["length"] or None, chosen["style"] or None, **typed),  # type: ignore[arg-type]
            retry_failed=self.query_one("#retry_failed", Select).value == YES,
            redo=self.query_one("#redo", Select).value == YES,
        )  # fmt: skip

    def add_path(self, path: Path) -> None:
        area = self.query_one("#paths", TextArea)
        area.text = "\n".join([*filter(str.strip, area.text.splitlines()), str(path)])


def _path(line: str) -> Path:
    """A line as typed, or as a terminal pastes a dropped file: in quotes."""
    text = line.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return Path(text).expanduser()


def _select(name: str, options: list[tuple[str, str]], value: str) -> Select[str]:
    shown = [(Content(sanitize_line(label)), key) for label, key in options]
    return Select[str](shown, value=value, allow_blank=False, id=name, compact=True)
