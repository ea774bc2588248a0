"""The chat screen: what it consists of, and what becomes of each wish of the person."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import TextArea

from localllm.errors import LocalLLMError, UsageError
from localllm.tasks.attaching import mentions
from localllm.tui.commands import parse
from localllm.tui.keymap import KEYS, bindings
from localllm.tui.replies import ChatHost
from localllm.tui.screens.chat_replies import ChatReplies
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.flow import MarkdownFlow
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.keybar import KeyBar
from localllm.tui.widgets.message import TurnMessage, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.sidebar import ChatList, Sidebar
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript

COUNT_AFTER_SECONDS = 0.3
"""After the last key, the files in the message are counted."""


class ChatScreen(ChatReplies):
    """One conversation, and the list of all."""

    BINDINGS = bindings("chat")
    AUTO_FOCUS = "#prompt"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, host: ChatHost, model: str = "", keys: Mapping[str, str] = KEYS, *, first: bool = False) -> None:
        """`first` for somebody who has never been here."""
        super().__init__()
        self.host, self.store = host, host.store
        self.model = model
        self.first = first
        self.state = None
        self.busy = False
        self._keys = keys
        self._replies = []
        self._counting: Timer | None = None

    def compose(self) -> ComposeResult:
        yield ChatHeader()
        with Horizontal(id="main"):
            yield Sidebar(self.store)
            with Vertical():
                yield Transcript(self.model, first=self.first)
                yield Banner()
                yield StatusBar()
                yield Prompt(self._keys)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(ChatHeader).model = self.model
        self.host.connect(self.post_message)
        self._work("opening the model …", self.host.open)

    def warn(self, error: LocalLLMError) -> None:
        """Something to know from the start."""
        self._warning = error

    # What the person does

    @on(Prompt.Sent)
    async def send(self, event: Prompt.Sent) -> None:
        """Run a command or send a message; what cannot be done now goes back to the input."""
        prompt = self.query_one(Prompt)
        try:
            command = parse(event.text)
        except UsageError as error:
            self._show_error(error)
            prompt.give_back(event.text)
            return
        if command and command.name in ("help", "quit"):
            await self.app.run_action(f"app.{command.name}")
        elif not self._free():
            prompt.give_back(event.text)
        elif command:
            self.run_command(command.name, command.argument)
        else:
            self.ask(event.text)

    def ask(self, text: str) -> None:
        """Send a message to the model: at the end, or in place of the one that is being edited."""
        editing, self.editing = self.editing, None
        self.query_one(Prompt).border_title = ""
        shown = self.query_one(Transcript).branch
        end = shown[-1].id if shown else None
        self._work("reading …", partial(self.host.reply, text, end if editing is None else editing.parent))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc is dimmed in the footer while it has nothing to do."""
        if action != "stop" or self.replying or self.editing is not None:
            return True
        return True if any(banner.display for banner in self.query(Banner)) else None

    @on(TurnMessage.Wished)
    def message_wished(self, event: TurnMessage.Wished) -> None:
        message, wish = event.message, event.wish
        match wish:
            case "copy":
                self.action_copy(message)
            case "copy_code":
                self.action_copy_code(message)
            case "again":
                self.action_again(message)
            case "go_on":
                self.action_go_on(message)
            case "edit":
                if isinstance(message, UserMessage) and self._free():
                    self.edit(message.turn)
            case "previous" | "next":
                self.show_branch(message, -1 if wish == "previous" else 1)
            case "links":
                self.links(message)
            case "up" | "down":
                self.move(message, -1 if wish == "up" else 1)
            case "leave":
                self.query_one(Prompt).focus()

    @on(MarkdownFlow.Copied)
    def code_copied(self, event: MarkdownFlow.Copied) -> None:
        self.copy(event.code, "Code copied")

    @on(Sidebar.Chosen)
    def chat_chosen(self, event: Sidebar.Chosen) -> None:
        if self._free():
            self._work("opening …", partial(self.host.show, event.chat, event.turn))
            self.query_one(Prompt).focus()
            self.query_one(Sidebar).set_class(False, "-shown")

    @on(ChatList.Wished)
    def list_wished(self, event: ChatList.Wished) -> None:
        if event.wish == "leave":
            self.query_one(Sidebar).remove_class("-shown")
            self.query_one(Prompt).focus()
        elif event.wish == "undo":
            self.action_undo()
        elif event.chat is not None:
            getattr(self, f"action_{event.wish}")(event.chat)

    @on(Prompt.Interrupted)
    async def interrupt(self) -> None:
        """Ctrl+C: copy what is selected, else stop the reply, else empty the input, else say how to quit."""
        prompt = self.query_one(Prompt)
        if self.get_selected_text():
            self.action_copy_text()
        elif self.replying:
            self.action_stop()
        elif prompt.text:
            prompt.clear()
        else:
            self._hint("Ctrl+Q quits.")

    @on(Prompt.Scrolled)
    async def scroll_transcript(self, event: Prompt.Scrolled) -> None:
        transcript = self.query_one(Transcript)
        if event.direction < 0 and transcript.scroll_y == 0:
            await transcript.more()
        move = transcript.scroll_page_up if event.direction < 0 else transcript.scroll_page_down
        move(animate=False)

    @on(TextArea.Changed, "#prompt")
    def typed(self) -> None:
        """Have the files in the message counted once the person pauses."""
        if self._counting is not None:
            self._counting.stop()
        prompt = self.query_one(Prompt)
        prompt.border_subtitle = ""
        if "@" in prompt.text and self.state is not None:
            self._counting = self.set_timer(COUNT_AFTER_SECONDS, self._count)

    def _count(self) -> None:
        text = self.query_one(Prompt).text
        if mentions(text) and not self.busy:
            self.run_worker(partial(self.host.count, text), thread=True, group="count")
