"""The fine-tune screen: a form while nothing is going on, and the run's curves, numbers and verdict afterwards.

The run belongs to `Jobs`; the screen looks at it a few times a second and may be left at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Input, Static

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tasks.preparing import FinetuneRequest
from localllm.tasks.previewing import Preview
from localllm.tasks.unfinished import Unfinished
from localllm.tui.events import ChatWith
from localllm.tui.finetune_text import legend, numbers, outcome, problem, report_text, status_line
from localllm.tui.keymap import bindings
from localllm.tui.leaving import is_here
from localllm.tui.screens.confirm import ConfirmScreen
from localllm.tui.widgets.keybar import KeyBar
from localllm.tui.widgets.losscurve import LossCurve
from localllm.tui.widgets.paths import BrowseScreen, start_of
from localllm.tui.widgets.titlebar import TitleBar
from localllm.tui.widgets.trainingform import TrainingForm
from localllm.tui.work.jobs import Jobs
from localllm.tui.work.training import PHASES, TrainingJob

LOOK_SECONDS = 0.2


class FinetuneScreen(Screen[None]):
    """Left with Esc; a run goes on."""

    CSS_PATH = "work.tcss"
    PLACE = "finetune"
    BINDINGS = bindings(PLACE)
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self.jobs = jobs
        self._left: list[Unfinished] = []
        self._drawn: tuple[int, int] | None = None
        self._preview: tuple[FinetuneRequest, Preview] | None = None

    def compose(self) -> ComposeResult:
        yield TitleBar("Fine-tune", self.PLACE)
        with Container(id="setup"):
            yield TrainingForm(self.jobs.models(), self.jobs.model)
            with VerticalScroll(id="report"):
                yield Vertical(id="left")
                yield Static(id="said", markup=False)
        with Vertical(id="run"):
            yield Static(id="what", markup=False)
            yield Static(id="numbers", markup=False)
            yield LossCurve()
            yield Static(id="legend", markup=False)
            with VerticalScroll(id="outcome", can_focus=False):
                yield Static(id="ending", markup=False)
        with Horizontal(id="actions"):
            for name, label in (
                ("start", "Start"), ("check", "Check"), ("pause", "Pause"), ("go_on", "Go on"),
                ("keep_best", "Stop, keep best"), ("chat", "Chat with it"), ("discard", "Discard"), ("new", "New run"),
            ):  # fmt: skip
                yield Button(label, id=f"do-{name}", compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self._say(Content.styled("Choose data and press Check: nothing is loaded for it.", "dim"))
        self._show()
        if self.job is None:
            self.query_one("#data").focus()
        self.set_interval(LOOK_SECONDS, self._look)

    @property
    def job(self) -> TrainingJob | None:
        return self.jobs.training

    # What the person does

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what can be done now is offered."""
        job = self.job
        training = job is not None and job.status == "running" and job.phase == PHASES[2] and not job.finishing
        resumable = job is not None and job.status in ("stopped", "failed") and job.step > 0
        possible = {
            "start": job is None,
            "check": job is None,
            "pause": job is not None and job.status == "running",
            "go_on": resumable,
            "keep_best": training or resumable,
            "discard": resumable,
            "chat": job is not None and job.done is not None,
            "new": job is not None and job.over,
        }
        return possible.get(action, True)

    @on(Button.Pressed)
    async def pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or event.button.name or ""
        if name == "browse":
            self._browse()
        elif name.startswith("do-"):
            await self.run_action(f"screen.{name.removeprefix('do-')}")
        elif name.startswith("run-"):
            _, action, number = name.split("-")
            self._with_left(action, self._left[int(number)])

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        self.action_check()

    def action_leave(self) -> None:
        self.dismiss()

    def action_check(self) -> None:
        """Have the checker look at the data, and estimate the memory."""
        if (request := self._request()) is not None:
            self._say(Content("Looking at the data …"))
            self.run_worker(partial(self._look_at, request), thread=True, group="check", exclusive=True)

    def action_start(self) -> None:
        if (request := self._request()) is not None:
            self._begin(request)

    def action_pause(self) -> None:
        """Stop with everything saved; the memory is free meanwhile."""
        if self.job is not None:
            self.job.stop()
            self._show()

    def action_go_on(self) -> None:
        if self.job is not None:
            self._begin(replace(self.job.request, resume=True, restart=False, finish=False))

    def action_keep_best(self) -> None:
        """End the run with the best so far, also one that is paused."""
        if self.job is not None and self.job.over:
            self._begin(replace(self.job.request, resume=True, restart=False, finish=True))
        else:
            self._do(self.jobs.keep_best)

    def action_discard(self) -> None:
        if self.job is not None:
            self._discard(self.job.name, self.job.step)

    def action_chat(self) -> None:
        if self.job is not None and self.job.done is not None:
            self.app.post_message(ChatWith(self.job.request.model, self.job.done.adapter.name))

    def action_new(self) -> None:
        """Back to the form."""
        self.jobs.training = None
        self._show()
        self.query_one("#data").focus()

    def _browse(self) -> None:
        field = self.query_one("#data", Input)

        def chosen(path: Path | None) -> None:
            if path is not None:
                field.value = str(path)
                self.action_check()

        self.app.push_screen(BrowseScreen(start_of(field.value), "What to learn from"), chosen)

    def _with_left(self, action: str, left: Unfinished) -> None:
        if action == "go":
            self._begin(left.request)
        elif action == "best":
            self._begin(replace(left.request, finish=True))
        else:
            self._discard(left.name, left.step)

    def _discard(self, name: str, step: int) -> None:
        def answered(yes: bool | None) -> None:
            if yes and self._do(partial(self.jobs.discard, name)):
                self.action_new()

        question = f"Discard the run {sanitize_line(name)}, with {step} steps of training?"
        self.app.push_screen(ConfirmScreen(question, "Discard"), answered)

    def _begin(self, request: FinetuneRequest) -> None:
        if self._do(lambda: self.jobs.train(request)) and self.job is not None:
            if self._preview and self._preview[0] == request and self._preview[1].fit:
                self.job.memory = self._preview[1].fit.footprint.total
            self.set_focus(None)
            self._show()

    def _do(self, what: Callable[[], object]) -> bool:
        """Whether it could be done; otherwise the reason is shown."""
        try:
            what()
        except LocalLLMError as error:
            self._say(problem(error))
            if self.job is not None:
                self.notify(sanitize_line(str(error)), severity="error", markup=False)
            return False
        return True

    def _request(self) -> FinetuneRequest | None:
        try:
            return self.query_one(TrainingForm).request()
        except LocalLLMError as error:
            self._say(problem(error))
            return None

    # What is shown

    def _look_at(self, request: FinetuneRequest) -> None:
        """In a thread."""
        try:
            found = self.jobs.preview(request)
        except LocalLLMError as error:
            self.app.call_from_thread(self._say, problem(error))
            return
        self._preview = request, found
        self.app.call_from_thread(self._say, report_text(found))

    def _say(self, text: Content) -> None:
        if is_here(self):  # a check may end after the screen was left
            self.query_one("#said", Static).update(text)
            self.query_one("#report").scroll_home(animate=False)

    def _look(self) -> None:
        """Draw what is new."""
        if self.job is not None and self._drawn != (id(self.job), self.job.version):
            self._show()

    def _show(self) -> None:
        job = self.job
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
        self.query_one("#what", Static).update(Content(sanitize_line(f"{job.name}  on  {job.request.model}")))
        self.query_one("#numbers", Static).update(numbers(job))
        self.query_one(LossCurve).show(job.train, job.validation, job.steps)
        self.query_one("#legend", Static).update(legend(job))
        self.query_one("#ending", Static).update(outcome(job))
        self.query_one("#outcome").set_class(job.over, "-over")

    def _show_left(self) -> None:
        """Runs that were left, each with what can be done about it."""
        self._left = self.jobs.unfinished()[:3]
        place = self.query_one("#left", Vertical)
        place.remove_children()
        for number, run in enumerate(self._left):
            said = sanitize_line(f"{run.name} was left at step {run.step} of {run.steps}")
            buttons = [
                Button(label, name=f"run-{action}-{number}", classes="left-action", compact=True)
                for action, label in (("go", "Go on"), ("best", "Keep best"), ("drop", "Discard"))
            ]
            place.mount(Static(Content.styled(said, "bold"), classes="left-run"), Horizontal(*buttons, classes="row"))
