"""The settings of one conversation: sampling, system prompt, JSON schema."""

from __future__ import annotations

from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Select, Static, TextArea

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize, sanitize_line
from localllm.store.chats.records import ChatSettings
from localllm.store.chats.store import ChatStore
from localllm.tui.parameters import PARAMETERS, PRESETS, preset_of, read, read_schema, shown
from localllm.tui.screens.ask import AskScreen
from localllm.types import Sampling

HANDBOOK = {"model": "as the model needs it", "on": "look questions up", "off": "do not look them up"}
_ASKED: dict[str, bool | None] = {"model": None, "on": True, "off": False}


class SettingsScreen(ModalScreen[ChatSettings | None]):
    """Ends with the settings to use from the next reply on, or None."""

    BINDINGS = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("ctrl+s", "save", "Save"),
    ]

    def __init__(self, settings: ChatSettings, sampling: Sampling, store: ChatStore) -> None:
        """`sampling` is what is in force now."""
        super().__init__()
        self._settings, self._sampling, self._store = settings, sampling, store

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -tall", id="settings") as box:
            box.border_title = "Settings of this conversation"
            box.border_subtitle = "Ctrl+S saves · Esc goes back"
            with VerticalScroll(can_focus=False):
                yield Label("Presets", classes="heading")
                with Horizontal(classes="row"):
                    for name in PRESETS:
                        yield Button(name, id=f"preset-{name}", compact=True)
                    yield Static(id="preset-now", classes="meaning", markup=False)
                yield Label("Sampling", classes="heading")
                for parameter in PARAMETERS:
                    with Horizontal(classes="row"):
                        yield Label(parameter.label, classes="name")
                        value = shown(self._sampling, parameter)
                        yield Input(value, id=f"p-{parameter.name}", compact=True, select_on_focus=True)
                        yield Static(Content(parameter.meaning), classes="meaning")
                yield Label("Handbook", classes="heading")
                with Horizontal(classes="row"):
                    now = next(name for name, asked in _ASKED.items() if asked is self._settings.handbook)
                    choices = [(Content(text), name) for name, text in HANDBOOK.items()]
                    yield Select[str](choices, value=now, allow_blank=False, id="handbook", compact=True)
                    yield Static("for questions about localllm", classes="meaning")
                yield Label("System prompt", classes="heading")
                with Horizontal(classes="row"):
                    yield Select[str](self._library(), prompt="From your library", id="library", compact=True)
                    yield Button("keep in library", id="keep", compact=True)
                yield TextArea(self._settings.system or "", id="system", compact=True, tab_behavior="focus")
                yield Label("JSON schema that replies must match", classes="heading")
                yield TextArea(
                    self._sampling.json_schema or "", id="schema", compact=True, tab_behavior="focus", language=None
                )
            yield Static(id="problem", markup=False)
            with Horizontal(id="buttons"):
                yield Button("Save", id="save", variant="primary", compact=True)
                yield Button("Back", id="back", compact=True)

    def on_mount(self) -> None:
        self.query_one("#p-temperature", Input).focus()
        self._say_preset(self._sampling)

    def _library(self) -> list[tuple[Content, str]]:
        try:
            return [(Content(sanitize_line(name)), name) for name in self._store.prompts()]
        except LocalLLMError:
            return []

    def _say_preset(self, sampling: Sampling) -> None:
        name = preset_of(sampling)
        text = f"now {name}: {PRESETS[name][0]}" if name else "now your own"
        self.query_one("#preset-now", Static).update(Content(text))

    @on(Input.Changed)
    def changed(self) -> None:
        try:
            self._say_preset(self._read())
        except LocalLLMError as error:
            self._problem(error)
        else:
            self._problem(None)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or ""
        if name.startswith("preset-"):
            for field, value in PRESETS[name.removeprefix("preset-")][1].items():
                self.query_one(f"#p-{field}", Input).value = f"{value:g}"
        elif name == "save":
            self.action_save()
        elif name == "back":
            self.dismiss(None)
        elif name == "keep":
            self._keep()

    @on(Select.Changed, "#library")
    def chosen(self, event: Select.Changed) -> None:
        if isinstance(event.value, str):
            self.query_one("#system", TextArea).text = self._store.prompts().get(event.value, "")

    def _keep(self) -> None:
        """Save the system prompt under a name."""
        text = self.query_one("#system", TextArea).text

        def named(name: str | None) -> None:
            if name and name.strip():
                self._store.save_prompt(name.strip(), text)
                self.query_one("#library", Select).set_options(self._library())

        if text.strip():
            self.app.push_screen(AskScreen("Name for this system prompt"), named)
        else:
            self._problem(LocalLLMError("There is no system prompt to keep.", "Write one below."))

    def _read(self) -> Sampling:
        typed = {parameter.name: self.query_one(f"#p-{parameter.name}", Input).value for parameter in PARAMETERS}
        schema = read_schema(self.query_one("#schema", TextArea).text)
        return replace(read(self._sampling, typed), json_schema=schema)

    def _problem(self, error: LocalLLMError | None) -> None:
        self.query_one("#problem", Static).update(Content(sanitize(f"Error: {error}") if error else ""))

    def action_save(self) -> None:
        try:
            sampling = self._read()
        except LocalLLMError as error:
            self._problem(error)
            return
        system = self.query_one("#system", TextArea).text.strip() or None
        handbook = _ASKED[str(self.query_one("#handbook", Select).value)]
        # What was not touched stays the model's own, so that it changes when the model does.
        chosen = self._settings.sampling if sampling == self._sampling else sampling
        self.dismiss(replace(self._settings, sampling=chosen, system=system, handbook=handbook))

    @on(TextArea.Changed)
    def mended(self) -> None:
        """What was wrong may no longer be."""
        self._problem(None)
