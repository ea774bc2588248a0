"""What a person can do on the chat screen. Each action is a few lines: checks, then work for the host."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

from textual.screen import Screen

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.store.chats.records import Turn
from localllm.store.chats.store import ChatStore
from localllm.tui.events import ChatState
from localllm.tui.links import code_blocks, links_in
from localllm.tui.replies import ChatHost
from localllm.tui.screens.ask import AskScreen
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.message import AssistantMessage, TurnMessage, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.sidebar import Sidebar
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript


class ChatActions(Screen[None]):
    """The actions of the place "chat" in the keymap."""

    host: ChatHost
    store: ChatStore
    state: ChatState | None
    """None until the model is open."""
    busy: bool
    """Whether the host is at work; it takes one thing at a time."""
    editing: Turn | None = None
    """The turn that the message in the input is to take the place of."""
    _last_adapter: str | None = None

    @property
    @abstractmethod
    def replying(self) -> bool: ...

    # Replies

    def action_stop(self) -> None:
        """Stop the reply; without one, end editing; without that, dismiss the banner."""
        if self.replying:
            self.host.stop()
            self.query_one(StatusBar).activity = "stopping …"
        elif self.editing is not None:
            self.edit(None)
        else:
            self.query_one(Banner).dismiss()

    def action_again(self, message: TurnMessage | None = None) -> None:
        """Have a reply written again."""
        last = message or self._last_message()
        if self._free() and last is not None and last.turn is not None:
            self._work("reading …", partial(self.host.again, last.turn.id))

    def action_go_on(self, message: TurnMessage | None = None) -> None:
        """Go on with a reply that was cut."""
        last = message or self._last_message()
        if not self._free():
            return
        if isinstance(last, AssistantMessage) and last.turn is not None and last.turn.state != "complete":
            self._work("reading …", partial(self.host.go_on, last.turn.id))
        else:
            self._hint("The last reply is complete.", "Ctrl+R writes it again.")

    def action_edit_last(self) -> None:
        questions = list(self.query(UserMessage))
        if questions and self._free():
            self.edit(questions[-1].turn)

    def edit(self, turn: Turn | None) -> None:
        """Take a message of the person's into the input; sending it begins a branch. None ends that."""
        prompt = self.query_one(Prompt)
        self.editing = turn
        prompt.border_title = "Editing: Enter sends it as a new branch, Esc leaves it as it was" if turn else ""
        prompt.text = turn.content if turn else ""
        prompt.move_cursor(prompt.document.end)
        prompt.focus()
        self.refresh_bindings()

    # Conversations

    def action_new(self) -> None:
        if self._free():
            self._work("", self.host.begin)

    def action_conversations(self) -> None:
        """Into the list; from there, hide it."""
        sidebar = self.query_one(Sidebar)
        if sidebar.has_class("-shown") and sidebar.has_focus_within:
            sidebar.remove_class("-shown")
            self.query_one(Prompt).focus()
        else:
            sidebar.add_class("-shown")
            sidebar.reload()
            sidebar.focus_search()

    def action_rename(self, chat: int | None = None) -> None:
        number = chat or self._number()
        if number is not None:
            title = self.store.chat(number).title
            self.app.push_screen(AskScreen("Title of the conversation", title), partial(self._rename, number))

    def _rename(self, chat: int, title: str | None) -> None:
        if title is None:
            return
        if self.state is not None and chat == self.state.chat and not self.busy:
            self._work("", partial(self.host.rename, title))
        else:
            self._stored(lambda: self.store.rename(chat, title))

    def action_pin(self, chat: int | None = None) -> None:
        if (number := chat or self._number()) is not None:
            self._stored(lambda: self.store.pin(number, not self.store.chat(number).pinned))

    def action_delete(self, chat: int | None = None) -> None:
        number = chat or self._number()
        current = self.state is not None and number == self.state.chat
        if number is None or (current and not self._free()):
            return
        title = sanitize_line(self.store.chat(number).title)
        if self._stored(lambda: self.store.delete(number)):
            self._hint(f"Deleted: {title or '(empty)'}.", "/undo, or u in the list, brings it back.")
            if current:
                self._work("", self.host.begin, keep_banner=True)

    def action_undo(self) -> None:
        """Bring back what was deleted last."""
        deleted = self.store.deleted()
        if not deleted:
            self._hint("Nothing was deleted.")
        elif self._free() and self._stored(lambda: self.store.restore(deleted[0].id)):
            self._work("", partial(self.host.show, deleted[0].id))

    def action_export(self, chat: int | None = None) -> None:
        if (number := chat or self._number()) is not None:
            name = "".join(c if c.isalnum() else "-" for c in sanitize_line(self.store.chat(number).title))[:40]
            text = "A name that ends in .md gives Markdown, .json everything that can be imported again."
            suggestion = f"{name.strip('-').lower() or 'conversation'}.md"
            self.app.push_screen(AskScreen("Export to", suggestion, text), partial(self.export, number))

    def export(self, chat: int, path: str | None) -> None:
        """Write a conversation to a file."""
        from localllm.tasks.conversations import export_file

        if path and path.strip():
            if Path(path).expanduser().exists():
                self._show_error(LocalLLMError(f"{path} exists already.", "Choose another name."))
                return
            try:
                self._hint(f"Exported to {export_file(self.store, chat, Path(path))}.")
            except LocalLLMError as error:
                self._show_error(error)

    # Copying

    def action_copy(self, message: TurnMessage | None = None) -> None:
        found = message or next((m for m in reversed(list(self.query(AssistantMessage)))), None)
        if found is not None:
            self.copy(found.turn.content if found.turn else found.text, "Copied as Markdown")

    def action_copy_code(self, message: TurnMessage | None = None) -> None:
        """One code block of a reply; which one is asked where there are several."""
        found = message or next((m for m in reversed(list(self.query(AssistantMessage)))), None)
        blocks = code_blocks(found.text) if found is not None else []
        if len(blocks) < 2:
            if blocks:
                self.copy(blocks[0][1], "Code copied")
            else:
                self._hint("There is no code block in it.")
            return
        answers = [
            Answer(str(i), f"{i + 1}  {language or 'code'}, {code.count(chr(10)) + 1} lines", code.strip()[:60])
            for i, (language, code) in enumerate(blocks)
        ]
        self.app.push_screen(
            ChooseScreen("Copy which code?", answers),
            lambda i: self.copy(blocks[int(i)][1], "Code copied") if i else None,
        )

    def copy(self, text: str, said: str) -> None:
        self.app.copy_to_clipboard(text)
        self._hint(f"{said}: {len(text)} characters.")

    def links(self, message: TurnMessage) -> None:
        """The addresses in a message: shown whole before one is opened."""
        addresses = links_in(message.text)
        if not addresses:
            self._hint("There is no address in it.")
            return
        screen = ChooseScreen("Open an address in the browser", [Answer(a, a) for a in addresses])
        self.app.push_screen(screen, lambda address: self._confirm_link(address) if address else None)

    def _confirm_link(self, address: str) -> None:
        answers = [Answer("copy", "Copy it"), Answer("open", "Open it in the browser")]
        screen = ChooseScreen("What now?", answers, address)

        def chosen(what: str | None) -> None:
            if what == "open":
                self.app.open_url(address)
            elif what == "copy":
                self.copy(address, "Address copied")

        self.app.push_screen(screen, chosen)

    # Moving

    def action_messages(self) -> None:
        """From the input up into the messages."""
        if (messages := self.query_one(Transcript).messages) and (last := messages[-1]):
            last.focus()

    def move(self, message: TurnMessage, step: int) -> None:
        """To the message above or below; below the last is the input."""
        messages = self.query_one(Transcript).messages
        at = messages.index(message) + step
        if at >= len(messages):
            self.query_one(Prompt).focus()
        elif at >= 0:
            messages[at].focus()

    def action_scroll_up(self) -> None:
        self.query_one(Prompt).action_cursor_page_up()

    def action_scroll_down(self) -> None:
        self.query_one(Prompt).action_cursor_page_down()

    def show_branch(self, message: TurnMessage, step: int) -> None:
        """The sibling before or after."""
        if message.turn is None or len(message.branches) < 2 or not self._free():
            return
        at = message.branches.index(message.turn.id) + step
        if 0 <= at < len(message.branches):
            self._work("", partial(self.host.show_turn, message.branches[at]))

    # Helpers

    def _number(self) -> int | None:
        """The conversation that is shown; says so where there is none yet."""
        if self.state is None or self.state.chat is None:
            self._hint("Nothing was said in this conversation yet.")
            return None
        return self.state.chat

    def _last_message(self) -> TurnMessage | None:
        messages = self.query_one(Transcript).messages
        if not messages:
            self._hint("Nothing was said in this conversation yet.")
        return messages[-1] if messages else None

    def _stored(self, change: Callable[[], None]) -> bool:
        """Change something in the store that the list shows; whether it could be done."""
        try:
            change()
        except LocalLLMError as error:
            self._show_error(error)
            return False
        self.query_one(Sidebar).reload()
        return True

    def _free(self) -> bool:
        """Whether the host can take work; if not, say why."""
        if self.state is None:
            self._hint("The model is still being opened.", "Press Enter again when it is ready.")
        elif self.replying:
            self._hint("A reply is being written.", "Esc stops it.")
        return self.state is not None and not self.busy

    @abstractmethod
    def _work(self, activity: str, work: Callable[[], None], *, keep_banner: bool = False) -> None:
        """Have the host do something, saying so; unless the banner is kept it goes."""

    def _hint(self, message: str, hint: str = "") -> None:
        self.query_one(Banner).show_hint(message, hint)

    def _show_error(self, error: LocalLLMError) -> None:
        self.query_one(Banner).show_error(error)
