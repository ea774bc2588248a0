"""The chat screen: what it consists of, and how it shows what the host reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import TextArea

from localllm.errors import LocalLLMError, UsageError
from localllm.sanitize import sanitize_line
from localllm.store.chats.records import Turn
from localllm.tasks.attaching import mentions
from localllm.tui.commands import parse
from localllm.tui.events import (
    ActionFailed,
    Changed,
    ChatState,
    ContextFull,
    Cost,
    Counted,
    Loaded,
    Opened,
    ReplyBegun,
    ReplyEnded,
    ReplyFailed,
    ReplyFinished,
    ReplyProgress,
)
from localllm.tui.keymap import KEYS, bindings
from localllm.tui.replies import ChatHost
from localllm.tui.screens.chat_commands import ChatCommands
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.flow import MarkdownFlow
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.keybar import KeyBar
from localllm.tui.widgets.message import AssistantMessage, TurnMessage, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.sidebar import ChatList, Sidebar
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript

COUNT_AFTER_SECONDS = 0.3
"""After the last key, the files in the message are counted."""

NUMBERS_SECONDS = 0.4
"""Between two changes of the numbers below a reply that is being written: each costs a fifth of drawing its text."""


class ChatScreen(ChatCommands):
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
        self.state: ChatState | None = None
        """None until the model is open."""
        self.busy = False
        """Whether the host is at work; it takes one thing at a time."""
        self._keys = keys
        self._replies: list[AssistantMessage] = []
        self._counting: Timer | None = None
        self._counted_at = float("-inf")  # when the numbers of a reply on its way were shown last
        self._warning: LocalLLMError | None = None

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

    @property
    def replying(self) -> bool:
        """Whether a reply is being written."""
        return bool(self._replies)

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

    # What the host reports

    @on(Opened)
    def opened(self, event: Opened) -> None:
        self._done(event.state, "ready")
        self.query_one(Transcript).welcome(event.state)
        self.query_one(Sidebar).show_current(None)
        if self._warning is not None:
            self._show_error(self._warning)

    @on(Changed)
    async def changed(self, event: Changed) -> None:
        self._done(event.state, "ready")
        self.query_one(Sidebar).show_current(event.state.chat)
        if event.note:
            await self.query_one(Transcript).add_note(event.note)

    @on(Loaded)
    async def loaded(self, event: Loaded) -> None:
        transcript = self.query_one(Transcript)
        among_messages = isinstance(self.focused, TurnMessage)
        if event.branch != transcript.branch or event.state.left_out != transcript.left_out or not event.branch:
            await transcript.show(event.state, event.branch)
            self.call_after_refresh(transcript.complete)
        self._done(event.state, "ready")
        if event.note:
            await transcript.add_note(event.note)
        if event.focus is not None:
            await transcript.reveal(event.focus, focus=among_messages)
        self.query_one(Sidebar).show_current(event.state.chat)
        self.query_one(Prompt).give_back(event.give_back)

    @on(Counted)
    def counted(self, event: Counted) -> None:
        if self.state is not None:
            self._show_state(replace(self.state, context_used=event.context_used))

    @on(ActionFailed)
    def action_failed(self, event: ActionFailed) -> None:
        self._done(self.state, "ready")
        self._show_error(event.error)

    @on(ReplyBegun)
    async def reply_begun(self, event: ReplyBegun) -> None:
        transcript = self.query_one(Transcript)
        if event.question is not None:
            await transcript.add_question(event.question)
            self.query_one(Sidebar).show_current(event.state.chat)
        self._replies = await transcript.add_replies(event.replies)
        self._show_state(event.state)
        self.refresh_bindings()

    @on(ReplyProgress)
    def progress(self, event: ReplyProgress) -> None:
        """Draw new text; the context fills as it comes."""
        if self.state is None:
            return
        if event.lane < 0:
            self.query_one(StatusBar).activity = f"summarizing … {event.tokens} tokens"
            return
        if event.lane >= len(self._replies):
            return
        # With the text, so that one drawing of the screen is enough for both.
        self._replies[event.lane].write(event.text, partial(self._show_progress, event))

    def _show_progress(self, event: ReplyProgress) -> None:
        if self.state is None or not self.replying:
            return
        status, now = self.query_one(StatusBar), monotonic()
        share = event.prompt_done / event.prompt_total if event.prompt_total else 0
        activity = "writing …" if event.tokens else f"reading {share:.0%} …"
        if activity == status.activity and now < self._counted_at + NUMBERS_SECONDS:
            return
        self._counted_at = now
        status.activity = activity
        if event.tokens:
            status.tokens_per_second = event.tokens_per_second
        status.context = (event.prompt_done + event.tokens, self.state.n_ctx)

    @on(ReplyEnded)
    async def reply_ended(self, event: ReplyEnded) -> None:
        assert self.state is not None
        usage = event.replied.usage
        full = usage.prompt_tokens + usage.output_tokens >= self.state.n_ctx - 1
        why = "the context is full" if full else "the most tokens allowed were written"
        turn = self.store.turns.get(event.replied.turn)
        self.query_one(Transcript).saved(turn)
        if event.lane < len(self._replies):
            await self._replies[event.lane].finish(turn, why)
        self.query_one(StatusBar).tokens_per_second = usage.tokens_per_second

    @on(ReplyFinished)
    def reply_finished(self, event: ReplyFinished) -> None:
        self._replies = []
        self._done(event.state, "ready", self.query_one(StatusBar).tokens_per_second)
        if event.warning is not None:
            self._show_error(event.warning)

    @on(ReplyFailed)
    async def reply_failed(self, event: ReplyFailed) -> None:
        """Show what is kept; a message of which nothing came goes back to the input."""
        replies, self._replies = self._replies, []
        self._done(event.state or self.state, "ready")
        for reply in replies:
            await reply.finish(None)
        if replies or event.text:
            branch = [] if event.state is None or event.state.chat is None else self._branch(event.state.chat)
            if self.state is not None and branch != self.query_one(Transcript).branch:
                await self.query_one(Transcript).show(self.state, branch)
                self.call_after_refresh(self.query_one(Transcript).complete)
        self._show_error(event.error)
        self.query_one(Sidebar).reload()
        if not event.kept or not replies:
            self.query_one(Prompt).give_back(event.text)

    @on(ContextFull)
    async def context_full(self, event: ContextFull) -> None:
        """Ask what to leave out, and then answer."""
        self._done(event.state, "waiting for you")
        self.busy = True
        over, left_out = event.needed - event.state.n_ctx, event.state.left_out
        so_far = f"{left_out} messages are left out already." if left_out else "Nothing has been left out yet."
        text = (
            f"With this message the conversation needs {event.needed} tokens, and the context holds "
            f"{event.state.n_ctx}: {over} too many. {so_far}"
        )
        answers = [
            Answer("drop", "Leave out the oldest messages", "they stay in the list; the model no longer gets them"),
            Answer("summarize", "Summarize the oldest messages", "the model writes a summary, and gets it instead"),
            Answer("back", "Back to the message", "shorten it, or begin a new conversation (Ctrl+N)"),
        ]

        def chosen(how: str | None) -> None:
            doing = {"summarize": "summarizing …", "drop": "counting …"}.get(how or "", "")
            self._work(doing, partial(self.host.make_room, how or "back", event.question.id))

        self.app.push_screen(ChooseScreen("The context is full", answers, text), chosen)

    @on(Cost)
    def cost(self, event: Cost) -> None:
        """What the files in the message take, under the input."""
        prompt = self.query_one(Prompt)
        if event.text != prompt.text or self.state is None:
            return
        left = self.state.n_ctx - self.state.context_used
        files = ", ".join(f"{sanitize_line(name)} {tokens} tokens" for name, tokens in event.files)
        too_many = sum(tokens for _, tokens in event.files) > left
        warning = f" · more than the {left} that are left" if too_many else ""
        prompt.border_subtitle = sanitize_line(event.error) if event.error else files + warning

    # Helpers

    def _branch(self, chat: int) -> list[Turn]:
        try:
            return self.store.turns.branch(chat)
        except LocalLLMError:
            return []

    def _work(self, activity: str, work: Callable[[], None], *, keep_banner: bool = False) -> None:
        """Have the host do something in a worker thread."""
        self.busy = True
        if not keep_banner:
            self.query_one(Banner).dismiss()
        self.refresh_bindings()
        status = self.query_one(StatusBar)
        status.activity, status.tokens_per_second = activity, 0.0
        self.run_worker(work, thread=True, group="host")

    def _done(self, state: ChatState | None, activity: str, tokens_per_second: float = 0.0) -> None:
        """The host is free again; show the state as it now is."""
        self.busy = False
        self.refresh_bindings()
        status = self.query_one(StatusBar)
        status.activity, status.tokens_per_second = activity, tokens_per_second
        if state is not None:
            self._show_state(state)

    def _show_state(self, state: ChatState) -> None:
        self.state = state
        header = self.query_one(ChatHeader)
        header.title = state.chat_title
        header.model, header.adapter, header.compared = state.model, state.adapter, state.compared
        status = self.query_one(StatusBar)
        status.context, status.handbook = (state.context_used, state.n_ctx), state.handbook
        status.schema = bool(state.sampling.json_schema)
        self._last_adapter = state.adapter or self._last_adapter
