"""The input: Enter sends, Ctrl+J starts a new line, Up and Down go through what was sent before.

`@` and a path name a file; Tab completes it, and a file that is dropped on the terminal becomes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from textual import events
from textual.message import Message
from textual.widgets import TextArea

from localllm.sanitize import sanitize_line
from localllm.tasks.attaching import complete, dropped
from localllm.tui.keymap import KEYS, bindings


@dataclass
class History:
    """Messages sent so far, and the draft that is being written."""

    sent: list[str] = field(default_factory=list)
    draft: str = ""
    at: int = 0
    """Index of the shown one in `sent`; one past its end is the draft."""

    def add(self, text: str) -> None:
        """Remember a sent message and go back to an empty draft."""
        if not self.sent or self.sent[-1] != text:
            self.sent.append(text)
        self.at, self.draft = len(self.sent), ""

    def move(self, step: int, current: str) -> str | None:
        """The text `step` away from the one shown, or None at either end."""
        target = self.at + step
        if not 0 <= target <= len(self.sent):
            return None
        if self.at == len(self.sent):
            self.draft = current
        self.at = target
        return self.sent[target] if target < len(self.sent) else self.draft


class Prompt(TextArea):
    """A text area that grows with its text."""

    BINDINGS = bindings("prompt")

    @dataclass
    class Sent(Message):
        """The person pressed Enter. The input is empty again; a receiver that cannot take the text gives it back."""

        text: str

    @dataclass
    class Scrolled(Message):
        """The person asked for another page of the conversation: -1 up, 1 down."""

        direction: int

    class Interrupted(Message):
        """Ctrl+C with nothing selected in the input."""

    def __init__(self, keys: Mapping[str, str] = KEYS) -> None:
        """`keys` are those of all actions, by id."""
        super().__init__(
            id="prompt",
            placeholder="Message, @file, or /help",
            highlight_cursor_line=False,
            tab_behavior="focus",
            compact=True,
        )
        self.history_of_sent = History()
        self._keys = {key.strip(): name for name in ("prompt.send", "prompt.newline") for key in keys[name].split(",")}

    def give_back(self, text: str) -> None:
        """Put a message back that was not answered. If the person is writing another, Up still finds it."""
        if text and not self.text:
            self._replace_all(text)

    async def _on_key(self, event: events.Key) -> None:
        """Take these keys in the order they were typed; as bindings they could overtake the text."""
        name = self._keys.get(event.key)
        if name is None and not (event.key == "tab" and self._complete()):
            return
        event.stop()
        event.prevent_default()
        if name == "prompt.send":
            self.action_send()
        elif name == "prompt.newline":
            self.action_newline()

    async def _on_paste(self, event: events.Paste) -> None:
        """A terminal pastes the path of a file that is dropped on it."""
        if (files := dropped(event.text)) is not None:
            event.stop()
            event.prevent_default()
            self.insert(files)

    def _complete(self) -> bool:
        """Complete the path before the cursor; false where there is none to complete."""
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        completed = complete(before)
        if completed is None:
            return False
        start, mention, found = completed
        if mention != before[start:]:
            self.replace(mention, (row, start), (row, column), maintain_selection_offset=False)
        names = "  ".join(sanitize_line(name.rstrip("/").rpartition("/")[2]) for name in found[:8])
        self.border_subtitle = (names if len(found) > 1 else "") if found else "no such file"
        return True

    def action_send(self) -> None:
        text = self.text.strip()
        if text:
            self.history_of_sent.add(text)
            self.clear()
            self.post_message(self.Sent(text))

    def action_newline(self) -> None:
        self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self.cursor_at_first_line or not self._recall(-1):
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self.cursor_at_last_line or not self._recall(1):
            super().action_cursor_down(select)

    def action_cursor_page_up(self) -> None:
        self.post_message(self.Scrolled(-1))

    def action_cursor_page_down(self) -> None:
        self.post_message(self.Scrolled(1))

    def action_copy(self) -> None:
        if self.selected_text:
            super().action_copy()
        else:
            self.post_message(self.Interrupted())

    def _recall(self, step: int) -> bool:
        text = self.history_of_sent.move(step, self.text)
        if text is not None:
            self._replace_all(text)
        return text is not None

    def _replace_all(self, text: str) -> None:
        self.text = text
        self.move_cursor(self.document.end)
