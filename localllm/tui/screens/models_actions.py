"""What a person can do on the models screen: look, chat, and download. Changes are in models_changes.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Input

from localllm.errors import CancelledError, LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tui.events import ChatOn
from localllm.tui.leaving import is_here
from localllm.tui.models_text import choice_lines, memory_line, offer_text
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.screens.models_changes import ModelsChanges
from localllm.tui.widgets.modeltable import ModelTable

if TYPE_CHECKING:
    from localllm.tasks.browsing import Listed
    from localllm.tasks.pull import PullRequest
    from localllm.tasks.remote import Choice, Offer

_MLX = "mlx"
_LETTERS = ("chat", "get", "stop", "go_on", "drop", "delete", "forget", "hash", "search", "add")


class ModelsActions(ModelsChanges):
    """The actions of the place "models" in the keymap."""

    looking: threading.Event | None = None
    """Cancels the question to the hub that is under way."""
    left: PullRequest | None = None
    """A download that was left when the app was."""
    offers: dict[str, Offer]
    """What repositories were found to have, by what was typed."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what can be done now is offered, and no letters while a search is typed."""
        typing = isinstance(self.focused, Input) and action in _LETTERS
        return self.possible(action) and not typing

    def possible(self, action: str) -> bool:
        """Whether that can be done now."""
        row, job = self.row, self.library.download
        here = row is not None and row.place == "here"
        left = job is None and self.left is not None
        possible = {
            "chat": here and row is not None and not row.problem,
            "get": row is not None and not here,
            "stop": job is not None and job.status == "running",
            "go_on": left or (job is not None and job.status in ("stopped", "failed")),
            "drop": left or (job is not None and job.over),
            "delete": row is not None and row.is_ours,
            "forget": row is not None and row.whose == "folder",
            "hash": here and row is not None and not row.problem,
        }
        return possible.get(action, True)

    # Going elsewhere

    def action_leave(self) -> None:
        """End what is asked; then leave the search; then the screen. A download goes on."""
        search = self.query_one("#search", Input)
        if self.looking is not None:
            self.looking.set()
        elif search.has_focus:
            search.value = ""
            self.query_one(ModelTable).focus()
        else:
            self.dismiss()

    def action_search(self) -> None:
        self.query_one("#search", Input).focus()

    def action_refresh(self) -> None:
        """Read the lists again, and ask the hub anew."""
        self.offers.clear()
        self.refresh_rows()

    # Using and getting

    def action_use(self) -> None:
        """What Enter does: chat with what is here, get what is not."""
        row = self.row
        if row is not None and row.place == "here":
            self.action_chat()
        elif row is not None:
            self.action_get()

    def action_chat(self) -> None:
        """Switch the chat to the model; one that memory does not hold is refused there, with what would fit."""
        row = self.row
        if row is None or row.place != "here":
            return
        if row.problem:
            self.say_problem(LocalLLMError(f"{row.name} cannot be used: {row.problem}.", "Choose another model."))
            return
        self.app.post_message(ChatOn(row.name))

    def action_get(self) -> None:
        """Ask the hub for what there is of the model; a row of a repository is downloaded at once."""
        row = self.row
        if row is None or row.place == "here":
            return
        if row.place == "catalog":
            self.look_up(row.name, self.choose)
        elif found := self._offered(row):
            self._take(*found)
        else:
            self.look_up(row.name, lambda offer: self.refresh_rows())

    def look_up(self, reference: str, then: Callable[[Offer], object], *, mlx: bool = False) -> None:
        """Have the hub asked in a thread."""
        if self.looking is not None:
            return
        self.looking = cancel = threading.Event()
        self.say(Content(sanitize_line(f"Asking the hub for {reference} … Esc stops.")))

        def ask() -> None:
            try:
                found = self.library.look_up(reference, cancel, mlx=mlx)
            except LocalLLMError as error:
                self.app.call_from_thread(self._looked_up, error, None, then)
            else:
                self.offers[reference] = found
                self.app.call_from_thread(self._looked_up, None, found, then)

        self.run_worker(ask, thread=True, group="look")

    def _looked_up(self, error: LocalLLMError | None, found: Offer | None, then: Callable[[Offer], object]) -> None:
        self.looking = None
        if not is_here(self):  # left meanwhile
            return
        if isinstance(error, CancelledError):
            self.say(Content("Not asked any more."))
        elif error is not None:
            self.say_problem(error)
        elif found is not None:
            self.say(Content(""))
            then(found)

    def choose(self, offer: Offer) -> None:
        """Which of the quantizations, each with its size and fit."""
        from localllm.tasks.fetching import rows_of

        rows = rows_of(offer)
        answers = [
            Answer(str(number), *choice_lines(row, choice == offer.taken))
            for number, (row, choice) in enumerate(zip(rows, offer.choices, strict=True))
        ]
        mlx_repo = offer.named.card.get("mlx", {}).get("repo")
        if mlx_repo and not offer.named.mlx:
            answers.append(Answer(_MLX, "the same for MLX …", f"{mlx_repo}: for Macs, and as a base to teach"))
        name = offer.named.name

        def chosen(answer: str | None) -> None:
            if answer == _MLX:
                self.look_up(name, self.choose, mlx=True)
            elif answer is not None:
                self._take(offer, offer.choices[int(answer)])

        text = offer_text(offer, self.library.memory())
        taken = offer.choices.index(offer.taken)
        self.app.push_screen(ChooseScreen(f"Download {name}: which weights?", answers, text, chosen=taken), chosen)

    def _offered(self, row: Listed) -> tuple[Offer, Choice] | None:
        """The choice that a row of a repository stands for."""
        from localllm.tasks.fetching import rows_of

        for offer in self.offers.values():
            for found, choice in zip(rows_of(offer), offer.choices, strict=True):
                if found.name == row.name:
                    return offer, choice
        return None

    def _take(self, offer: Offer, choice: Choice) -> None:
        """Download a choice; one that is too big only after a question."""
        from localllm.tasks.fetching import request_for, rows_of

        row = rows_of(offer)[offer.choices.index(choice)]
        begin = partial(self.fetch, request_for(offer, choice, force=row.verdict != "fits"))
        if row.verdict == "too big":
            question = f"{sanitize_line(row.name)}: {memory_line(row, offer.memory)}. Download it all the same?"
            self.ask(question, "Download", begin)
        else:
            begin()

    def fetch(self, request: PullRequest) -> None:
        """Begin the download."""
        self.do(lambda: self.library.fetch(request))

    def action_stop(self) -> None:
        """What has arrived is kept."""
        if self.library.download is not None:
            self.library.download.stop()

    def action_go_on(self) -> None:
        """With a download that was stopped, or left when the app was."""
        job = self.library.download
        request = job.request if job is not None else self.left
        if request is not None:
            self.fetch(request)

    def action_drop(self) -> None:
        """Do not speak of the download any more."""
        job = self.library.download
        if job is None or job.status != "done":
            self.library.forget_left()
        self.library.download = None
        self.show_download()
