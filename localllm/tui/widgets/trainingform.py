"""The form of the fine-tune screen: data, name, model, and the settings with their meanings."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Collapsible, Input, Label, Select, Static

from localllm.sanitize import sanitize_line
from localllm.tasks.preparing import FinetuneRequest
from localllm.tui.finetune_form import ADVANCED, FLAGS, PLAIN, TOO_LONG, TRAIN_ON, Setting, read
from localllm.tui.widgets.paths import PathInput

YES = "yes"


class TrainingForm(VerticalScroll):
    """Everything is optional but the data."""

    can_focus = False

    def __init__(self, models: list[str], model: str) -> None:
        super().__init__(id="form")
        self._models, self._model = models, model

    def compose(self) -> ComposeResult:
        with Horizontal(classes="row"):
            yield Label("Data", classes="name")
            yield PathInput(id="data", placeholder="rows.jsonl, .csv, .parquet or a dataset's folder")
            yield Button("Browse", id="browse", compact=True)
        with Horizontal(classes="row"):
            yield Label("Name", classes="name")
            yield Input(id="name", compact=True, placeholder="the file's", classes="short")
            yield Static("of the adapter; the file's name if empty", classes="meaning")
        with Horizontal(classes="row"):
            yield Label("Model", classes="name")
            options = [(Content(sanitize_line(name)), name) for name in self._models]
            value = self._model if self._model in self._models else self._models[0]
            yield Select[str](options, value=value, allow_blank=False, id="model", compact=True)
        for setting in PLAIN:
            yield _row(setting)
        with Collapsible(title="More settings", id="more"):
            for setting in ADVANCED:
                yield _row(setting)
            yield _choice("Too long rows", "too_long", TOO_LONG)
            yield _choice("Learn", "train_on", TRAIN_ON)
            for name, label, meaning in FLAGS:
                yield flag(name, label, meaning)

    def request(self) -> FinetuneRequest:
        """What is asked for. Raises UsageError."""
        values = {widget.id: widget.value for widget in self.query(Input) if widget.id}
        flags = {name: self.query_one(f"#{name}", Select).value == YES for name, _, _ in FLAGS}
        choices = {name: str(self.query_one(f"#{name}", Select).value) for name in ("too_long", "train_on", "model")}
        return read(values, flags, choices)


def flag(name: str, label: str, meaning: str) -> Horizontal:
    """Yes or no, in words: a box that is ticked differs from one that is not by its colour alone."""
    select = Select[str](
        [("no", "no"), (YES, YES)], value="no", allow_blank=False, id=name, compact=True, classes="flag"
    )
    return Horizontal(Label(label, classes="name"), select, Static(Content(meaning), classes="meaning"), classes="row")


def _row(setting: Setting) -> Horizontal:
    field = Input(id=setting.name, compact=True, placeholder=setting.default, classes="short")
    label = Label(setting.label, classes="name")
    return Horizontal(label, field, Static(Content(setting.meaning), classes="meaning"), classes="row")


def _choice(label: str, name: str, options: tuple[tuple[str, str], ...]) -> Horizontal:
    select = Select[str](options, value=options[0][1], allow_blank=False, id=name, compact=True)
    return Horizontal(Label(label, classes="name"), select, classes="row")
