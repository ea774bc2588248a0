"""The terminal app. `run_chat` opens it; everything it shows comes from the Chat that `open_chat` returns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on
from textual.app import App, SystemCommand
from textual.events import Event, Key
from textual.filter import LineFilter
from textual.screen import ModalScreen, Screen

from localllm.errors import LocalLLMError
from localllm.paths import Home
from localllm.sanitize import sanitize_line
from localllm.store.chats.store import ChatStore
from localllm.tasks.conversations import open_store
from localllm.tui.events import ChatOn, ChatWith, JobEnded, Opened, OpenFailed
from localllm.tui.filters import ControlFilter
from localllm.tui.keymap import KEYS, bindings, load_keys
from localllm.tui.palette import commands
from localllm.tui.replies import ChatHost
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.help import HelpScreen
from localllm.tui.theme import DARK, THEMES
from localllm.tui.work.jobs import Jobs

if TYPE_CHECKING:
    from localllm.store.registry import Registry
    from localllm.tasks.chat import Chat


class LocalLLMApp(App[None]):
    """Holds the host, the themes and the keys that work everywhere; the screens do the rest."""

    CSS_PATH = "app.tcss"
    TITLE = "localllm"
    BINDINGS = bindings("app", priority=True)

    def __init__(
        self,
        open_chat: Callable[[], Chat],
        *,
        store: ChatStore | None = None,
        model: str = "",
        clock: Callable[[], float] = time.monotonic,
        keys: Mapping[str, str] | None = None,
        unsaved: LocalLLMError | None = None,
        jobs: Jobs | None = None,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        """`store` None keeps conversations in memory, and `unsaved` is why; `model` is the name to show while it is
        being opened; `clock` times the streaming; `keys` are the person's own, by the actions' ids;
        without `jobs` there are neither fine-tuning nor batches; `settled` is called once the model is open."""
        super().__init__()
        self._control_filter = ControlFilter()
        self.store = store or ChatStore()
        self.host = ChatHost(open_chat, self.store, clock)
        self.model = sanitize_line(model)
        self.keys = KEYS | dict(keys or {})
        self.jobs = jobs
        self.open_error: BaseException | None = None
        self._unsaved = unsaved
        self._settled = settled
        self.typed_at = 0.0
        """When a key was pressed last, by time.monotonic: drawing waits for those who type."""
        for theme in THEMES:
            self.register_theme(theme)
        known = self.store.fact("theme")
        self.theme = known if known in [theme.name for theme in THEMES] else DARK.name
        if keys:
            self.set_keymap(dict(keys))

    def get_default_screen(self) -> Screen[None]:
        first = not self.store.fact("welcomed")
        with suppress(LocalLLMError):
            self.store.remember("welcomed", "yes")
        return ChatScreen(self.host, self.model, self.keys, first=first)

    def on_mount(self) -> None:
        if self._unsaved is not None and isinstance(self.screen, ChatScreen):
            self.screen.warn(self._unsaved)
        if self.jobs is not None:
            self.jobs.connect(lambda job: self.post_message(JobEnded(job)))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Everything that is drawn passes the control filter last."""
        return [*super().get_line_filters(), self._control_filter]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action that works here, with its key."""
        yield from commands(self, screen, self.keys)
        yield SystemCommand(
            "Choose a theme", "dark, light, high contrast, and those of Textual", self.action_change_theme
        )

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key):
            self.typed_at = time.monotonic()
        await super().on_event(event)

    @on(Opened)
    def opened(self) -> None:
        self._settled()

    @on(OpenFailed)
    def open_failed(self, event: OpenFailed) -> None:
        """Without a model there is nothing to do here: leave, and let the caller say why."""
        self.open_error = event.error
        self.exit(return_code=1)

    def on_unmount(self) -> None:
        self.host.disconnect()

    def action_help(self) -> None:
        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen(self.keys))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.jobs is not None if action in ("finetune", "batch", "models") else True

    def action_finetune(self) -> None:
        from localllm.tui.screens.finetune import FinetuneScreen

        if self.jobs is not None:
            self._show_work(FinetuneScreen(self.jobs))

    def action_batch(self) -> None:
        from localllm.tui.screens.batch import BatchScreen

        if self.jobs is not None:
            self._show_work(BatchScreen(self.jobs))

    def action_models(self) -> None:
        from localllm.tui.screens.models import ModelsScreen

        if self.jobs is not None:
            self._show_work(ModelsScreen(self.jobs, self._model_in_use))

    def _model_in_use(self) -> str:
        chat = self.screen_stack[0]
        return chat.state.model if isinstance(chat, ChatScreen) and chat.state is not None else ""

    def _show_work(self, screen: Screen[None]) -> None:
        """Over the chat, in place of another of its kind; not over a question that waits for its answer."""
        if isinstance(self.screen, (ModalScreen, type(screen))):
            return
        if isinstance(self.screen, ChatScreen):
            self.push_screen(screen)
        else:
            self.switch_screen(screen)

    @on(JobEnded)
    def job_ended(self, event: JobEnded) -> None:
        """Say so, on whatever screen it is."""
        job = event.job
        words = {"done": "is done", "stopped": "is stopped, and can be gone on with", "failed": "failed"}
        self.notify(
            sanitize_line(f"{job.name} {words[job.status]}"),
            severity="error" if job.status == "failed" else "information", markup=False,
        )  # fmt: skip

    @on(ChatWith)
    def chat_with(self, event: ChatWith) -> None:
        """Back to the chat, with this adapter on its model."""
        self._back_to_chat().chat_with(event.model, event.adapter)

    @on(ChatOn)
    def chat_on(self, event: ChatOn) -> None:
        """Back to the chat, with this model."""
        self._back_to_chat().use_model(event.model)

    def _back_to_chat(self) -> ChatScreen:
        while not isinstance(self.screen, ChatScreen):
            self.pop_screen()
        return self.screen

    def action_theme(self) -> None:
        """The next theme of ours; it is remembered."""
        names = [theme.name for theme in THEMES]
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]
        with suppress(LocalLLMError):
            self.store.remember("theme", self.theme)


@dataclass(frozen=True)
class Work:
    """What fine-tuning and batches need of the caller."""

    registry: Registry
    n_ctx: int | None
    n_threads: int | None
    say: Callable[[str], object]
    """Told, when the app is left, what was stopped and is kept."""
    force: bool = False
    """Whether models are opened that memory does not hold."""


def _jobs(work: Work, model: str) -> Jobs:
    return Jobs(work.registry, model, n_ctx=work.n_ctx, n_threads=work.n_threads, force=work.force)


def search_less_for_garbage() -> None:
    """What is loaded by now stays; to look through it again and again would hold up the keys for 70 ms each time."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)


def run_chat(
    open_chat: Callable[[], Chat], *, model: str = "", home: Home | None = None, work: Work | None = None
) -> int:
    """Run the app until the person leaves, and return the exit code; without a `home` nothing is saved.

    What `open_chat` raises is raised here, once the terminal is restored, and UsageError for a bad keys file at once.
    """
    keys = load_keys(home.root) if home else {}
    store, unsaved = None, None
    try:
        store = open_store(home) if home else None
    except LocalLLMError as error:  # a chat that is not saved is better than none
        unsaved = error
    jobs = _jobs(work, model) if work else None
    app = LocalLLMApp(
        open_chat, store=store, model=model, keys=keys, unsaved=unsaved, jobs=jobs, settled=search_less_for_garbage
    )  # fmt: skip
    try:
        app.run()
    finally:
        app.host.close()
        app.store.close()
        if jobs is not None and work is not None:
            for line in jobs.close():
                work.say(line)
    if app.open_error is not None:
        raise app.open_error
    return app.return_code or 0
