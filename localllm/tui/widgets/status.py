"""The line under the conversation: what is going on, how fast, and how full the context is."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

_METER_CELLS = 10


class StatusBar(Horizontal):
    """Activity and speed on the left, context fill on the right."""

    activity: reactive[str] = reactive("")
    tokens_per_second: reactive[float] = reactive(0.0)
    context: reactive[tuple[int, int]] = reactive((0, 0))
    """Tokens used, and tokens that the context holds."""
    handbook: reactive[bool] = reactive(False)
    """Whether questions are looked up first."""
    schema: reactive[bool] = reactive(False)
    """Whether replies must match a JSON schema; then nothing is looked up."""

    def compose(self) -> ComposeResult:
        yield Static(id="activity", markup=False)
        yield Static(id="handbook", markup=False)
        yield Static(id="context", markup=False)

    def watch_activity(self) -> None:
        self._show_activity()

    def watch_tokens_per_second(self) -> None:
        self._show_activity()

    def _show_activity(self) -> None:
        speed = f" · {self.tokens_per_second:.1f} tokens/s" if self.tokens_per_second else ""
        self.query_one("#activity", Static).update(Content(self.activity + speed), layout=False)

    def watch_handbook(self) -> None:
        self._show_kind()

    def watch_schema(self) -> None:
        self._show_kind()

    def _show_kind(self) -> None:
        kind = "JSON schema · " if self.schema else "handbook · " if self.handbook else ""
        self.query_one("#handbook", Static).update(Content(kind))

    def watch_context(self, context: tuple[int, int]) -> None:
        label = self.query_one("#context", Static)
        meter = context_meter(*context)
        label.update(Content(meter), layout=len(meter) != len(str(label.content)))  # a layout costs more than the text
        label.set_class(context[1] > 0 and context[0] >= 0.8 * context[1], "-nearly-full")


def context_meter(used: int, total: int) -> str:
    """`context ███░░░░░░░ 300/1000 30%`; from 80% on it says so in words too."""
    if total <= 0:
        return ""
    share = min(used / total, 1.0)
    filled = round(share * _METER_CELLS)
    warning = "full " if share >= 1 else "nearly full " if share >= 0.8 else ""
    return f"{warning}context {'█' * filled}{'░' * (_METER_CELLS - filled)} {used}/{total} {share:.0%}"
