"""How the chat screen shows a reply: begun, on its way, ended, or failed."""

from __future__ import annotations

from functools import partial
from time import monotonic

from textual import on

from localllm.errors import LocalLLMError
from localllm.store.chats.records import Turn
from localllm.tui.events import ReplyBegun, ReplyEnded, ReplyFailed, ReplyFinished, ReplyProgress
from localllm.tui.screens.chat_reports import ChatReports
from localllm.tui.widgets.message import AssistantMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.sidebar import Sidebar
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript

NUMBERS_SECONDS = 0.4
"""Between two changes of the numbers below a reply that is being written: each costs a fifth of drawing its text."""


class ChatReplies(ChatReports):
    """What the host reports while it writes; side by side there are several replies at once."""

    _replies: list[AssistantMessage]
    """Those being written, by lane."""
    _counted_at = float("-inf")
    """When the numbers of a reply on its way were shown last."""

    @property
    def replying(self) -> bool:
        """Whether a reply is being written."""
        return bool(self._replies)

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

    def _branch(self, chat: int) -> list[Turn]:
        try:
            return self.store.turns.branch(chat)
        except LocalLLMError:
            return []
