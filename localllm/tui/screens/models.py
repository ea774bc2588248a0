"""The models screen: everything that can be used or had, searched together, with what fits this machine.

Downloads belong to `Jobs`; the screen looks at them a few times a second and may be left at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, DataTable, Input, Static
from textual.worker import get_current_worker

from localllm.errors import LocalLLMError
from localllm.tasks.browsing import Listed, matches
from localllm.tasks.fetching import names_repository, rows_of
from localllm.tasks.remote import Offer
from localllm.tui.keymap import bindings
from localllm.tui.leaving import is_here
from localllm.tui.models_text import details, download_lines, left_line
from localllm.tui.screens.models_actions import ModelsActions
from localllm.tui.widgets.keybar import KeyBar
from localllm.tui.widgets.modeltable import ModelTable
from localllm.tui.widgets.titlebar import TitleBar
from localllm.tui.work.jobs import Jobs

LOOK_SECONDS = 0.2
DISK_SECONDS = 3.0
"""Between two looks at the folders."""
_BUTTONS = (
    ("chat", "Chat with it"), ("get", "Download"), ("stop", "Stop"), ("go_on", "Go on"), ("drop", "Dismiss"),
    ("delete", "Delete"), ("forget", "Forget"), ("add", "Add folder"), ("refresh", "Refresh"),
)  # fmt: skip


class ModelsScreen(ModelsActions):
    """Left with Esc; a download goes on."""

    CSS_PATH = "work.tcss"
    PLACE = "models"
    BINDINGS = bindings(PLACE)
    AUTO_FOCUS = "ModelTable"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, jobs: Jobs, in_use: Callable[[], str] = str) -> None:
        """`in_use` says which model the chat has."""
        super().__init__()
        self.library = jobs.library
        self.offers: dict[str, Offer] = {}
        self.all: list[Listed] = []
        self._in_use = in_use
        self._drawn: tuple[int, int] | None = None
        self._stamp: int | None = None
        self._was_over = True
        self._offered_now: tuple[bool, ...] = ()

    def compose(self) -> ComposeResult:
        yield TitleBar("Models", self.PLACE)
        yield Input(placeholder="/ searches: a name, a language, tools, or owner/repo", id="search", compact=True)
        with Horizontal(id="models"):
            yield ModelTable()
            with VerticalScroll(id="details"):
                yield Static(id="facts", markup=False)
        with Vertical(id="below"):
            yield Static(id="download", markup=False)
            yield Static(id="said", markup=False)
        with Horizontal(id="actions"):
            for name, label in _BUTTONS:
                yield Button(label, id=f"do-{name}", compact=True)
        yield KeyBar(compact=True)

    def on_mount(self) -> None:
        self.query_one(ModelTable).in_use = self._in_use()
        self.refresh_rows()
        self.show_download()
        self.set_interval(LOOK_SECONDS, self._look)
        self.set_interval(DISK_SECONDS, self._look_at_disk)

    # Rows

    def refresh_rows(self) -> None:
        """Read the lists again, in a thread: there may be many headers to read."""
        self.run_worker(self._read, thread=True, group="rows", exclusive=True)

    def _read(self) -> None:
        worker = get_current_worker()
        found: list[Listed] = []
        try:
            stamp = self.library.stamp()
            for batch in self.library.rows():
                found += batch
                if worker.is_cancelled:
                    return
                if not self.all or len(found) > len(self.all):  # the first time they are shown as they come
                    self.app.call_from_thread(self._take_rows, list(found), None)
            self.app.call_from_thread(self._take_rows, found, stamp)
        except LocalLLMError as error:
            self.app.call_from_thread(self.say_problem, error)

    def _take_rows(self, rows: list[Listed], stamp: int | None) -> None:
        """`stamp` is that of the disk once they are all there."""
        if not is_here(self):
            return
        first = not self.all
        self.all = rows
        self._stamp = stamp or self._stamp
        table = self.query_one(ModelTable)
        self._filter(f"here:{table.in_use}" if first else "")

    def _filter(self, highlight: str = "") -> None:
        """Show what the search leaves, and what the hub has of the repository that it names."""
        text = self.query_one("#search", Input).value.strip()
        rows = [row for row in self.all if matches(row, text)]
        if reference := names_repository(text):
            rows += rows_of(self.offers[reference]) if reference in self.offers else [_unknown(reference)]
        self.query_one(ModelTable).show(rows, highlight)
        here = sum(row.place == "here" for row in self.all)
        found = f"{len(rows)} of {len(self.all)} shown" if text else f"{here} here, {len(self.all) - here} to download"
        self.query_one(TitleBar).say(found)
        self._show_row()

    def _look_at_disk(self) -> None:
        """Read the lists again when something came or went."""
        if self.app.screen is self and self._stamp is not None:
            self.run_worker(self._compare, thread=True, group="disk", exclusive=True)

    def _compare(self) -> None:
        if self.library.stamp() != self._stamp:
            self.app.call_from_thread(self.refresh_rows)

    # What the person does

    @on(Input.Changed, "#search")
    def searched(self) -> None:
        self._filter()

    @on(Input.Submitted, "#search")
    def submitted(self) -> None:
        """To the rows; a repository is looked up."""
        reference = names_repository(self.query_one("#search", Input).value)
        table = self.query_one(ModelTable)
        table.focus()
        if reference and reference not in self.offers:
            self.look_up(reference, partial(self._show_offer, reference))

    def _show_offer(self, reference: str, offer: Offer) -> None:
        self._filter(rows_of(offer)[offer.choices.index(offer.taken)].key)

    def on_key(self, event: events.Key) -> None:
        """Down goes from the search into the rows."""
        if event.key == "down" and self.query_one("#search").has_focus:
            event.stop()
            self.query_one(ModelTable).focus()

    @on(ModelTable.Left)
    def table_left(self) -> None:
        self.query_one("#search").focus()

    @on(DataTable.RowHighlighted)
    def highlighted(self) -> None:
        self._show_row()

    @on(DataTable.RowSelected)
    def selected(self) -> None:
        self.action_use()

    def on_descendant_focus(self) -> None:
        self._offer_actions()

    @on(Button.Pressed)
    async def pressed(self, event: Button.Pressed) -> None:
        self.query_one(ModelTable).focus()
        await self.run_action(f"screen.{(event.button.id or '').removeprefix('do-')}")

    # What is shown

    def say(self, text: Content) -> None:
        if is_here(self):
            self.query_one("#said", Static).update(text)
            self.query_one("#said").display = bool(text.plain)

    def _show_row(self) -> None:
        row = self.row
        table = self.query_one(ModelTable)
        said = Content.styled("Nothing here is called that. owner/repo looks on the hub.", "dim")
        if row is not None:
            hashed = self.library.hashed(row.path) if row.path is not None and row.place == "here" else ""
            used = row.place == "here" and row.name == table.in_use
            said = details(row, in_use=used, hashed=hashed, memory=self.library.memory())
        self.query_one("#facts", Static).update(said)
        self.query_one("#details").scroll_home(animate=False)
        self._offer_actions()

    def _look(self) -> None:
        """Draw what is new of the download, and read the lists again when it is over."""
        job = self.library.download
        if job is not None and self._drawn != (id(job), job.version):
            if job.over and not self._was_over:
                self.refresh_rows()
            self.show_download()

    def show_download(self) -> None:
        job = self.library.download
        self._drawn = (id(job), job.version) if job is not None else None
        self._was_over = job is None or job.over
        self.left = self.library.left() if job is None else None
        place = self.query_one("#download", Static)
        place.display = job is not None or self.left is not None
        if job is not None:
            place.update(download_lines(job))
        elif self.left is not None:
            place.update(Content.styled(left_line(self.left.reference), "bold"))
        self._offer_actions()

    def _offer_actions(self) -> None:
        """In the footer and as buttons, where they are others than before."""
        offered = (*(self.possible(name) for name, _ in _BUTTONS), isinstance(self.focused, Input))
        if not is_here(self) or offered == self._offered_now:
            return
        self._offered_now = offered
        for button in self.query("#actions Button").results(Button):
            button.display = bool(self.possible((button.id or "").removeprefix("do-")))
        self.refresh_bindings()


def _unknown(reference: str) -> Listed:
    """The row of a repository that was not looked up yet."""
    facts = {"description": "Enter asks the hub what there is: quantizations with their sizes, and what fits."}
    return Listed(reference, "hub", "hub", repo=reference, facts=facts)
