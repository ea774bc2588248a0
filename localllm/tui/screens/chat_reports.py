"""What the host does for the chat screen: work is begun, and what comes of it shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from textual import on

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tui.events import ActionFailed, Changed, ChatState, ContextFull, Cost, Counted, Loaded, Opened
from localllm.tui.screens.chat_commands import ChatCommands
from localllm.tui.screens.choose import Answer, ChooseScreen
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.message import TurnMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.sidebar import Sidebar
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript


class ChatReports(ChatCommands):
    """Every report about the conversation as a whole; those about a reply on its way are in `chat_replies`."""

    _warning: LocalLLMError | None = None
    """Said once the model is open."""

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
