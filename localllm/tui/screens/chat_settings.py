"""What a reply is made with, chosen on the chat screen: model, adapter, handbook, settings, context."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.store.chats.records import ChatSettings
from localllm.tasks.choosing import model_choices
from localllm.tui.context_text import context_text
from localllm.tui.screens.chat_actions import ChatActions
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.screens.settings import SettingsScreen
from localllm.tui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from localllm.store.registry import Registry
    from localllm.tasks.browsing import Listed

_MORE = "\0more"


class ChatSettingsActions(ChatActions):
    """Each is a few lines: checks, then work for the host."""

    def action_adapter(self) -> None:
        """Switch off the adapter in use, or on the one that was last in use, or the only one there is."""
        if not self._free():
            return
        assert self.state is not None
        known = [self._last_adapter] if self._last_adapter else list(self.state.adapters)
        if self.state.adapter:
            self._work("switching …", partial(self.host.use_adapter, None))
        elif len(known) == 1:
            self._work("switching …", partial(self.host.use_adapter, known[0]))
        else:
            self._choose_adapter("Which adapter?", self.host.use_adapter)

    def action_compare(self) -> None:
        """Base and adapter side by side, or no longer."""
        if not self._free():
            return
        assert self.state is not None
        known = [self.state.adapter] if self.state.adapter else list(self.state.adapters)
        if self.state.compared:
            self._work("closing …", partial(self.host.compare, None))
        elif len(known) == 1:
            self._work("opening the model a second time …", partial(self.host.compare, known[0]))
        else:
            self._choose_adapter("Compare the base with which adapter?", self.host.compare)

    def _choose_adapter(self, title: str, use: Callable[[str], None]) -> None:
        assert self.state is not None
        if not self.state.adapters:
            self._hint("There is no adapter yet.", "F6 makes one; or in a shell: localllm finetune DATA --name NAME.")
            return
        answers = [Answer(name, name) for name in self.state.adapters]
        self.app.push_screen(
            ChooseScreen(title, answers), lambda name: self._work("switching …", partial(use, name)) if name else None
        )

    def action_model(self) -> None:
        """Choose another model; what fits is said."""
        if not self._free() or self.host._chat is None:
            return
        assert self.state is not None
        find = partial(self._find_models, self.host._chat.registry, self.state.n_ctx)
        self.run_worker(find, thread=True, group="models", exclusive=True)

    def _find_models(self, registry: Registry, n_ctx: int) -> None:
        """In a thread: there may be many headers to read."""
        try:
            self.app.call_from_thread(self._choose_model, model_choices(registry, n_ctx))
        except LocalLLMError as error:
            self.app.call_from_thread(self._show_error, error)

    def _choose_model(self, rows: list[Listed]) -> None:
        from localllm.tui.models_text import switch_lines

        answers = [Answer(row.name, *switch_lines(row), disabled=bool(row.problem)) for row in rows]
        if self.app.check_action("models", ()):
            answers.append(Answer(_MORE, "Other models …", "find and download them"))
        screen = ChooseScreen("Go on with which model?", answers, filtered=len(answers) > 8)

        async def chosen(name: str | None) -> None:
            if name == _MORE:
                await self.app.run_action("app.models")
            elif name:
                self.use_model(name)

        self.app.push_screen(screen, chosen)

    def use_model(self, name: str) -> None:
        if self._free():
            self._work(f"opening {sanitize_line(name)} …", partial(self.host.use_model, name))

    def chat_with(self, model: str, adapter: str) -> None:
        """Go on with an adapter on the model that it was made for."""
        if self._free():
            self._work(f"switching to {sanitize_line(adapter)} …", partial(self.host.chat_with, model, adapter))

    def action_handbook(self) -> None:
        """Look questions up in the handbook first, or no longer."""
        if self._free():
            assert self.state is not None
            self._work("", partial(self.host.use_handbook, not self.state.handbook))

    def action_entries(self) -> None:
        self.read_handbook("")

    @abstractmethod
    def read_handbook(self, about: str) -> None:
        """Show entries in full: on a topic, or those that the last reply that was looked up is from."""

    def action_settings(self) -> None:
        if self._free():
            assert self.state is not None
            screen = SettingsScreen(self.state.settings, self.state.sampling, self.store)
            self.app.push_screen(screen, self._use_settings)

    def _use_settings(self, settings: ChatSettings | None) -> None:
        if settings is not None and self.state is not None and settings != self.state.settings:
            self._work("", partial(self.host.set_settings, settings, "settings changed"))

    def action_context(self) -> None:
        """How full the context is, and what to leave out."""
        if not self._free():
            return
        assert self.state is not None
        answers = [
            Answer("drop", "Leave out the oldest", "they stay in the conversation, but the model no longer gets them"),
            Answer("summarize", "Summarize the oldest", "the model writes a summary, and gets it in their place"),
        ]
        if self.state.left_out:
            answers.append(Answer("all", "Send everything again", "nothing is left out"))
        text = context_text(self.state, self.query_one(Transcript).branch)
        self.app.push_screen(ChooseScreen("Context", answers, text), self._make_room)

    def _make_room(self, how: str | None) -> None:
        if how == "all":
            self._work("", self.host.send_all)
        elif how:
            doing = "summarizing …" if how == "summarize" else "counting …"
            self._work(doing, partial(self.host.leave_out, how))
