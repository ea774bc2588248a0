"""A question with a few answers, or many to filter, over the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localllm.sanitize import sanitize, sanitize_line


@dataclass(frozen=True)
class Answer:
    """One of the answers."""

    id: str
    name: str
    detail: str = ""
    disabled: bool = False


class ChooseScreen(ModalScreen[str | None]):
    """Ends with the id of the answer, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(
        self, title: str, answers: Sequence[Answer], text: str = "", *, filtered: bool = False, chosen: int = 0
    ) -> None:
        """`text` stands above the answers; `filtered` adds an input that narrows them down; `chosen` is the answer that
        is proposed, unless it is disabled."""
        super().__init__()
        self._title, self._answers, self._text, self._filtered = title, list(answers), text, filtered
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(sanitize_line(self._title))
            box.border_subtitle = "Enter chooses · Esc goes back"
            if self._text:
                with VerticalScroll(classes="dialog-text", can_focus=False):
                    yield Static(Content(sanitize(self._text)))
            if self._filtered:
                yield Input(placeholder="Type to filter", compact=True)
            yield OptionList(*self._options(), markup=False, compact=True)

    def on_mount(self) -> None:
        self.query_one(Input if self._filtered else OptionList).focus()
        order = [self._chosen, *range(len(self._answers))]
        usable = (i for i in order if i < len(self._answers) and not self._answers[i].disabled)
        self.query_one(OptionList).highlighted = next(usable, None)

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        words = event.value.lower().split()
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(self._options(words))
        options.highlighted = 0 if options.option_count else None

    @on(Input.Submitted)
    def submitted(self) -> None:
        self.query_one(OptionList).action_select()

    def on_key(self, event: events.Key) -> None:
        """The arrows move in the list also while the filter is typed."""
        if self._filtered and event.key in ("up", "down") and self.query_one(Input).has_focus:
            event.stop()
            options = self.query_one(OptionList)
            (options.action_cursor_up if event.key == "up" else options.action_cursor_down)()

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._answers[int(event.option_id or 0)].id)

    def _options(self, words: Sequence[str] = ()) -> list[Option]:
        """Those with all the words. Their ids are numbers: names from elsewhere may be the same."""
        return [
            _option(number, answer)
            for number, answer in enumerate(self._answers)
            if all(word in f"{answer.name} {answer.detail}".lower() for word in words)
        ]


def _option(number: int, answer: Answer) -> Option:
    detail = f"\n  {sanitize_line(answer.detail)}" if answer.detail else ""
    text = Content.assemble((sanitize_line(answer.name), "bold"), (detail, "dim"))
    return Option(text, id=str(number), disabled=answer.disabled)
