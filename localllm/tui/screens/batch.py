"""The batch screen: a form while nothing is going on, and afterwards the documents as they finish, to be opened.

The batch belongs to `Jobs`; the screen looks at it a few times a second and may be left at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, DataTable, Input, Static

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tasks.summary_here import BatchRequest, Listing, results
from localllm.tui.batch_text import first_line, listing_text, numbers, outcome, state_of, status_line
from localllm.tui.finetune_text import problem
from localllm.tui.keymap import bindings
from localllm.tui.leaving import is_here
from localllm.tui.screens.result import ResultScreen
from localllm.tui.widgets.batchform import BatchForm
from localllm.tui.widgets.keybar import KeyBar
from localllm.tui.widgets.paths import BrowseScreen, start_of
from localllm.tui.widgets.titlebar import TitleBar
from localllm.tui.work.batch import BatchJob
from localllm.tui.work.jobs import Jobs

LOOK_SECONDS = 0.2


class BatchScreen(Screen[None]):
    """Left with Esc; a batch goes on."""

    CSS_PATH = "work.tcss"
    PLACE = "batch"
    BINDINGS = bindings(PLACE)
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self.jobs = jobs
        self._drawn: tuple[int, int] | None = None
        self._rows: dict[str, tuple[str, str]] = {}

    def compose(self) -> ComposeResult:
        yield TitleBar("Summarize documents", self.PLACE)
        with Container(id="setup"):
            yield BatchForm(self.jobs.models(), self.jobs.model, self.jobs.adapters())
            with VerticalScroll(id="report"):
                yield Vertical(id="left")
                yield Static(id="said", markup=False)
        with Vertical(id="run"):
            yield Static(id="numbers", markup=False)
            yield DataTable[Content](cursor_type="row", zebra_stripes=True)
            yield Static(id="ending", markup=False)
        with Horizontal(id="actions"):
            for name, label in (
                ("start", "Start"), ("look", "Look"), ("open", "Open results"), ("stop", "Stop"), ("go_on", "Go on"),
                ("new", "New batch"),
            ):  # fmt: skip
                yield Button(label, id=f"do-{name}", compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_column("State", key="state", width=10)
        table.add_column("Document", key="document", width=26)
        table.add_column("Summary", key="summary", width=max(28, self.app.size.width - 46))
        self._say(Content.styled("Look shows what will be read, without opening it.", "dim"))
        self._show()
        if self.job is None:
            self.query_one("#paths").focus()
        self.set_interval(LOOK_SECONDS, self._refresh)

    @property
    def job(self) -> BatchJob | None:
        return self.jobs.batch

    # What the person does

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what can be done now is offered."""
        job = self.job
        going = job is not None and not job.over
        possible = {
            "start": job is None,
            "look": job is None,
            "open": job is None,
            "stop": going and job is not None and job.status == "running",
            "go_on": job is not None and job.status in ("stopped", "failed"),
            "new": job is not None and job.over,
        }
        return possible.get(action, True)

    @on(Button.Pressed)
    async def pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or event.button.name or ""
        if name == "browse":
            self._browse()
        elif name == "left-go":
            self._go_on_with_left()
        elif name == "left-forget":
            self.jobs.forget_batch()
            self._show()
        elif name.startswith("do-"):
            await self.run_action(f"screen.{name.removeprefix('do-')}")

    @on(Input.Submitted)
    def submitted(self) -> None:
        self.action_look()

    @on(DataTable.RowSelected)
    def selected(self, event: DataTable.RowSelected) -> None:
        """Open a summary."""
        document = self.job.documents.get(str(event.row_key.value)) if self.job is not None else None
        if document is not None and document.row is not None:
            self.app.push_screen(ResultScreen(document.row))

    def action_leave(self) -> None:
        self.dismiss()

    def action_look(self) -> None:
        """Show what will be read."""
        self._with_listing(lambda request, found: self._say(listing_text(found)))

    def action_start(self) -> None:
        self._with_listing(self._begin)

    def action_open(self) -> None:
        """The summaries that lie in the output."""
        try:
            out = Path(self.query_one("#out", Input).value.strip()).expanduser()
            job = BatchJob(BatchRequest((), out, self.jobs.model), [], lambda cancel: iter(()))
            job.finished_with(results(out))
        except LocalLLMError as error:
            self._say(problem(error))
            return
        self.jobs.batch = job
        self._show()

    def action_stop(self) -> None:
        """Summaries that are written stay; the same goes on where it was."""
        if self.job is not None:
            self.job.stop()
            self._show()

    def action_go_on(self) -> None:
        if self.job is not None:
            self._look_in_thread(self.job.request, self._begin)

    def action_new(self) -> None:
        """Back to the form."""
        self.jobs.batch = None
        self._show()
        self.query_one("#paths").focus()

    def _browse(self) -> None:
        form = self.query_one(BatchForm)

        def chosen(path: Path | None) -> None:
            if path is not None:
                form.add_path(path)
                self.action_look()

        self.app.push_screen(BrowseScreen(start_of(""), "What to summarize"), chosen)

    def _go_on_with_left(self) -> None:
        if (request := self.jobs.left()) is not None:
            self._look_in_thread(request, self._begin)

    def _with_listing(self, then: Callable[[BatchRequest, Listing], object]) -> None:
        try:
            request = self.query_one(BatchForm).request()
        except LocalLLMError as error:
            self._say(problem(error))
            return
        self._look_in_thread(request, then)

    def _look_in_thread(self, request: BatchRequest, then: Callable[[BatchRequest, Listing], object]) -> None:
        """A folder may be large."""

        def look() -> None:
            self.app.call_from_thread(then, request, self.jobs.listing(request))

        self.run_worker(look, thread=True, group="look", exclusive=True)

    def _begin(self, request: BatchRequest, found: Listing) -> None:
        if not is_here(self):  # left meanwhile
            return
        if not found.count:
            self._say(listing_text(found))
            return
        try:
            self.jobs.summarize(request, [name for name, _ in found.files])
        except LocalLLMError as error:
            self._say(problem(error))
            return
        self._show()

    # What is shown

    def _say(self, text: Content) -> None:
        if is_here(self):
            self.query_one("#said", Static).update(text)
            self.query_one("#report").scroll_home(animate=False)

    def _refresh(self) -> None:
        """Draw what is new."""
        if self.job is not None and self._drawn != (id(self.job), self.job.version):
            self._show()

    def _show(self) -> None:
        job = self.job
        fresh = job is not None and (self._drawn is None or self._drawn[0] != id(job))
        self._drawn = (id(job), job.version) if job is not None else None
        self.query_one("#setup").display = job is None
        self.query_one("#run").display = job is not None
        for button in self.query("#actions Button").results(Button):
            button.display = bool(self.check_action((button.id or "").removeprefix("do-"), ()))
        self.refresh_bindings()
        self.query_one(TitleBar).say(status_line(job) if job is not None else "")
        if job is None:
            self._show_left()
            return
        table = self.query_one(DataTable)
        if fresh:
            table.clear()
            self._rows = {}
            table.focus()
        if job.over and job.status != "failed":
            self._add_kept(job)
        self.query_one("#numbers", Static).update(numbers(job))
        self.query_one("#ending", Static).update(outcome(job))
        self._show_rows(job, table)

    def _add_kept(self, job: BatchJob) -> None:
        """What earlier runs had written."""
        if not job.complete:
            try:
                job.add_kept(results(job.request.out))
            except LocalLLMError as error:
                job.complete = True
                job.note(error.message)

    def _show_rows(self, job: BatchJob, table: DataTable[Content]) -> None:
        for source, document in job.documents.items():
            now = state_of(document, job), first_line(document)
            if self._rows.get(source) == now:
                continue
            state = Content.styled(now[0], "bold $error" if now[0] == "FAILED" else "")
            if source in self._rows:
                table.update_cell(source, "state", state)
                table.update_cell(source, "summary", Content(now[1]))
            else:
                name = Content(_shortened(sanitize_line(source)))
                table.add_row(state, name, Content(now[1]), key=source)
            self._rows[source] = now

    def _show_left(self) -> None:
        """A batch that did not come to its end, with what can be done about it."""
        place, left = self.query_one("#left", Vertical), self.jobs.left()
        place.remove_children()
        if left is not None:
            said = sanitize_line(f"A batch into {left.out} was left.")
            buttons = (
                Button("Go on", name="left-go", classes="left-action", compact=True),
                Button("Forget it", name="left-forget", classes="left-action", compact=True),
            )
            place.mount(Static(Content.styled(said, "bold"), classes="left-run"), Horizontal(*buttons, classes="row"))


def _shortened(name: str, most: int = 26) -> str:
    """The end of a path says most."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
