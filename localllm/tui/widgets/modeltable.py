"""The list of models: a row for each, with its fit; the row that is highlighted stays so while rows come and go."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable

from localllm.tasks.browsing import Listed
from localllm.tui.models_text import cells

_COLUMNS = (("Model", 0), ("Whose", 10), ("Size", 9), ("Weights", 8), ("Context", 8), ("Fit", 10))
"""Titles and widths; the name takes what is left beside the adapters."""
_LEAST_NAME, _LEAST_ADAPTERS, _ADAPTERS = 22, 9, 20


class ModelTable(DataTable[Content]):
    """Enter, or a click on the highlighted row, selects it; Up in the first row leaves the table.

    Names of adapters that have no room in their column stand in the details.
    """

    class Left(Message):
        """The person went up out of it."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0)
        self.rows_shown: list[Listed] = []
        self.in_use = ""
        """The model that the chat uses."""
        self._name_width = _LEAST_NAME

    @property
    def highlighted(self) -> Listed | None:
        """The row under the cursor."""
        at = self.cursor_row
        return self.rows_shown[at] if 0 <= at < len(self.rows_shown) else None

    def show(self, rows: Sequence[Listed], highlight: str = "") -> None:
        """Replace the rows; the one of that key is highlighted, else the one that was."""
        before = highlight or (self.highlighted.key if self.highlighted else "")
        self.clear()
        self.rows_shown = []
        self.add(rows)
        at = next((i for i, row in enumerate(rows) if row.key == before), 0)
        if rows:
            self.move_cursor(row=at, animate=False)

    def add(self, rows: Sequence[Listed]) -> None:
        """More of them, at the end."""
        for row in rows:
            used = row.place == "here" and row.name == self.in_use
            self.add_row(*cells(row, used, self._name_width - 1), key=row.key)
        self.rows_shown += rows

    def on_mount(self) -> None:
        self._lay_out(self.app.size.width)

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out(event.size.width)

    def action_cursor_up(self) -> None:
        if self.cursor_row <= 0:
            self.post_message(self.Left())
        else:
            super().action_cursor_up()

    def _lay_out(self, width: int) -> None:
        """Columns for this width."""
        rest = width - 2 - sum(width for _, width in _COLUMNS)  # less the padding and the scroll bar
        adapters = max(_LEAST_ADAPTERS, min(_ADAPTERS, rest // 3))
        self._name_width = max(_LEAST_NAME, rest - adapters)
        rows = self.rows_shown
        key = self.highlighted.key if self.highlighted else ""
        self.clear(columns=True)
        for title, cells_wide in _COLUMNS:
            self.add_column(title, width=cells_wide or self._name_width)
        self.add_column("Adapters", width=adapters)
        self.show(rows, key)
