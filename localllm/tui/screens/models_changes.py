"""What a person can change on the models screen: delete, add and forget; and what its actions have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content
from textual.screen import Screen

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tui.finetune_text import problem
from localllm.tui.models_text import removal_text
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.screens.confirm import ConfirmScreen
from localllm.tui.widgets.modeltable import ModelTable
from localllm.tui.widgets.paths import BrowseScreen, start_of
from localllm.tui.work.models import Models

if TYPE_CHECKING:
    from localllm.tasks.browsing import Listed
    from localllm.tasks.removing import Removal

_NOTE, _FILES = "note", "files"


class ModelsChanges(Screen[None]):
    """Each action checks, asks where something is lost, and has it done."""

    library: Models

    @property
    def row(self) -> Listed | None:
        return self.query_one(ModelTable).highlighted

    def action_delete(self) -> None:
        """Say what would break, and ask. Of a pulled model the files may stay, for others share them."""
        row = self.row
        if row is None or row.place != "here":
            return
        try:
            removal = self.library.removal(row.name)
            whole = self.library.removal(row.name, files=True) if removal.left else None
        except LocalLLMError as error:
            self.say_problem(error)
            return
        in_use = "\n! The chat is using it." if row.name == self.query_one(ModelTable).in_use else ""
        if whole is None:
            self.ask(removal_text(removal) + in_use, "Delete", partial(self._remove, removal))
            return
        answers = [
            Answer(_FILES, "Delete it with its files", "unless another model or program leads to them"),
            Answer(_NOTE, "Delete it from the list only", "its files stay in the hub's cache, which others share"),
        ]
        screen = ChooseScreen("Delete", answers, removal_text(whole) + in_use)
        which = {_FILES: whole, _NOTE: removal}
        self.app.push_screen(screen, lambda answer: self._remove(which[answer]) if answer else None)

    def _remove(self, removal: Removal) -> None:
        if self.do(lambda: self.library.remove(removal)):
            self.say(Content(sanitize_line(f"Deleted {removal.name}.")))
            self.refresh_rows()

    def action_forget(self) -> None:
        """Look no longer in the folder that was added; nothing in it is touched."""
        row = self.row
        folder = self.library.folder_of(row.path) if row is not None and row.path is not None else None
        if folder is None:
            return

        def forget() -> None:
            if self.do(lambda: self.library.forget_folder(folder)):
                self.say(Content(sanitize_line(f"{folder} is forgotten; nothing in it was touched.")))
                self.refresh_rows()

        question = f"Look no longer for models in {sanitize_line(str(folder))}? Nothing in it is touched."
        self.ask(question, "Forget it", forget)

    def action_add(self) -> None:
        """A folder in which models lie."""

        def chosen(path: Path | None) -> None:
            folder = path.parent if path is not None and path.is_file() else path
            if folder is not None and self.do(lambda: self.library.add_folder(folder)):
                self.say(Content(sanitize_line(f"Models are looked for in {folder} from now on.")))
                self.refresh_rows()

        self.app.push_screen(BrowseScreen(start_of(""), "A folder with models"), chosen)

    def action_hash(self) -> None:
        """Compute the hash of the file, which reads all of it."""
        row = self.row
        if row is None or row.path is None:
            return
        path = row.path
        self.say(Content(sanitize_line(f"Reading {row.name} …")))

        def compute() -> None:
            try:
                said = Content(f"SHA-256 {self.library.hash(path)}")
            except LocalLLMError as error:
                said = problem(error)
            self.app.call_from_thread(self.say, said)

        self.run_worker(compute, thread=True, group="hash", exclusive=True)

    # Helpers

    def do(self, what: Callable[[], object]) -> bool:
        """Whether it could be done; otherwise the reason is shown."""
        try:
            what()
        except LocalLLMError as error:
            self.say_problem(error)
            return False
        self.show_download()
        return True

    def ask(self, question: str, yes: str, then: Callable[[], object]) -> None:
        def answered(answer: bool | None) -> None:
            if answer:
                then()

        self.app.push_screen(ConfirmScreen(question, yes), answered)

    def say_problem(self, error: LocalLLMError) -> None:
        self.say(problem(error))

    @abstractmethod
    def say(self, text: Content) -> None:
        """One line, or an error with what to do."""

    @abstractmethod
    def refresh_rows(self) -> None:
        """Read the lists again."""

    @abstractmethod
    def show_download(self) -> None:
        """As it stands now."""
