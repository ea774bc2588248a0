"""The chat screen: turns what the person does into work for the host, and the host's events into what is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer

from localllm.errors import UsageError
from localllm.tui.commands import parse
from localllm.tui.events import (
    ActionFailed,
    Changed,
    ChatState,
    Opened,
    ReplyFailed,
    ReplyFinished,
    ReplyProgress,
)
from localllm.tui.host import ChatHost
from localllm.tui.keymap import bind
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.message import AssistantMessage, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import Transcript
from localllm.types import Usage

ENDINGS = {
    "stop": "",
    "cancelled": "stopped, the part above is kept · ",
    "length": "cut: {why} · ",
}


class ChatScreen(Screen[None]):
    """One conversation."""

    BINDINGS = [
        bind("chat.stop", "escape", "Stop"),
        bind("chat.adapter", "toggle_adapter", "Adapter"),
        bind("chat.clear", "clear", "Clear"),
    ]
    AUTO_FOCUS = "#prompt"

    def __init__(self, host: ChatHost, model: str = "") -> None:
        super().__init__()
        self.host = host
        self.model = model
        self.state: ChatState | None = None
        """None until the model is open."""
        self.busy = False
        """Whether the host is at work; it takes one thing at a time."""
        self._turn: tuple[UserMessage, AssistantMessage] | None = None
        self._last_adapter: str | None = None

    def compose(self) -> ComposeResult:
        yield ChatHeader()
        yield Transcript(self.model)
        yield Banner()
        yield StatusBar()
        yield Prompt()
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(ChatHeader).model = self.model
        self.host.connect(self.post_message)
        self._work("opening the model …", self.host.open)

    @property
    def replying(self) -> bool:
        """Whether a reply is being written."""
        return self._turn is not None

    # What the person does

    @on(Prompt.Sent)
    async def send(self, event: Prompt.Sent) -> None:
        """Run a command or send a message; what cannot be done now goes back to the input."""
        try:
            command = parse(event.text)
        except UsageError as error:
            self.query_one(Banner).show_error(error)
            self.query_one(Prompt).give_back(event.text)
            return
        if command and command.name in ("help", "quit"):
            await self.app.run_action(f"app.{command.name}")
        elif not self._free():
            self.query_one(Prompt).give_back(event.text)
        elif command:
            getattr(self, f"command_{command.name}")(command.argument)
        else:
            await self.ask(event.text)

    async def ask(self, text: str) -> None:
        """Send a message to the model."""
        assert self.state is not None
        author = f"{self.state.model} + adapter {self.state.adapter}" if self.state.adapter else self.state.model
        self._turn = await self.query_one(Transcript).add_turn(text, author)
        self._work("reading …", partial(self.host.reply, text))

    def command_adapter(self, name: str) -> None:
        """/adapter NAME | off"""
        if not name:
            self._hint_adapters()
        else:
            self._work("switching …", partial(self.host.use_adapter, None if name == "off" else name))

    def command_system(self, text: str) -> None:
        """/system TEXT | off"""
        if text:
            self._work("setting …", partial(self.host.set_system, None if text == "off" else text))
        else:
            system = self.state.system if self.state else None
            what = f"The system prompt is: {system}" if system else "There is no system prompt."
            self._hint(what, "/system TEXT sets one, /system off removes it.")

    def command_clear(self, _: str) -> None:
        """/clear"""
        self._work("clearing …", self.host.clear)

    def action_clear(self) -> None:
        if self._free():
            self.command_clear("")

    def action_toggle_adapter(self) -> None:
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
            self._hint_adapters()

    def action_escape(self) -> None:
        """Stop the reply; without one, dismiss the banner."""
        if self.replying:
            self.host.stop()
            self.query_one(StatusBar).activity = "stopping …"
        else:
            self.query_one(Banner).dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc is dimmed in the footer while it has nothing to do."""
        idle = not self.replying and not any(banner.display for banner in self.query(Banner))
        return None if action == "escape" and idle else True

    @on(Prompt.Interrupted)
    async def interrupt(self) -> None:
        """Ctrl+C: copy what is selected, else stop the reply, else empty the input, else say how to quit."""
        prompt = self.query_one(Prompt)
        if self.get_selected_text():
            self.action_copy_text()
        elif self.replying:
            self.action_escape()
        elif prompt.text:
            prompt.clear()
        else:
            self._hint("Ctrl+Q quits.")

    @on(Prompt.Scrolled)
    def scroll_transcript(self, event: Prompt.Scrolled) -> None:
        transcript = self.query_one(Transcript)
        move = transcript.scroll_page_up if event.direction < 0 else transcript.scroll_page_down
        move(animate=False)

    # What the host reports

    @on(Opened)
    def opened(self, event: Opened) -> None:
        self._done(event.state, "ready")
        self.query_one(Transcript).welcome(event.state)

    @on(Changed)
    async def changed(self, event: Changed) -> None:
        self._done(event.state, "ready")
        transcript = self.query_one(Transcript)
        await (transcript.add_note(event.note) if event.note else transcript.reset(event.state))

    @on(ActionFailed)
    def action_failed(self, event: ActionFailed) -> None:
        self._done(self.state, "ready")
        self.query_one(Banner).show_error(event.error)

    @on(ReplyProgress)
    async def progress(self, event: ReplyProgress) -> None:
        """Draw new text; the context fills as it comes."""
        if self._turn is None or self.state is None:
            return
        status = self.query_one(StatusBar)
        if event.tokens:
            status.activity = "writing …"
            status.tokens_per_second = event.tokens_per_second
        else:
            share = event.prompt_done / event.prompt_total if event.prompt_total else 0
            status.activity = f"reading {share:.0%} …"
        status.context = (event.prompt_done + event.tokens, self.state.n_ctx)
        await self._turn[1].write(event.text)

    @on(ReplyFinished)
    async def reply_finished(self, event: ReplyFinished) -> None:
        turn, self._turn = self._turn, None
        self._done(event.state, "ready", event.usage.tokens_per_second)
        if turn is not None:
            await turn[1].finish(_ending(event.reason, event.usage, event.state.n_ctx))

    @on(ReplyFailed)
    async def reply_failed(self, event: ReplyFailed) -> None:
        """Keep on the screen what was written, and say that it is not part of the conversation."""
        turn, self._turn = self._turn, None
        self._done(self.state, "ready")
        self.query_one(Banner).show_error(event.error)
        if turn is None:
            return
        question, reply = turn
        await reply.finish("failed · not kept in the conversation")
        self.query_one(Prompt).give_back(question.text)
        if reply.text:
            question.mark_lost()
        else:
            await question.remove()
            await reply.remove()
            if not self.query_one(Transcript).children and self.state:
                await self.query_one(Transcript).reset(self.state)

    # Helpers

    def _free(self) -> bool:
        """Whether the host can take work; if not, say why."""
        if self.state is None:
            self._hint("The model is still being opened.", "Press Enter again when it is ready.")
        elif self.replying:
            self._hint("A reply is being written.", "Esc stops it.")
        return self.state is not None and not self.busy

    def _work(self, activity: str, work: Callable[[], None]) -> None:
        """Have the host do something in a worker thread."""
        self.busy = True
        self.query_one(Banner).dismiss()
        self.refresh_bindings()
        status = self.query_one(StatusBar)
        status.activity, status.tokens_per_second = activity, 0.0
        self.run_worker(work, thread=True, group="host")

    def _done(self, state: ChatState | None, activity: str, tokens_per_second: float = 0.0) -> None:
        """The host is free again; show the state as it now is."""
        self.busy = False
        self.state = state
        self.refresh_bindings()
        status = self.query_one(StatusBar)
        status.activity, status.tokens_per_second = activity, tokens_per_second
        if state is not None:
            header = self.query_one(ChatHeader)
            header.model, header.adapter = state.model, state.adapter
            status.context = (state.context_used, state.n_ctx)
            self._last_adapter = state.adapter or self._last_adapter

    def _hint(self, message: str, hint: str = "") -> None:
        self.query_one(Banner).show_hint(message, hint)

    def _hint_adapters(self) -> None:
        names = ", ".join(self.state.adapters) if self.state else ""
        if names:
            self._hint(f"Adapters on this machine: {names}.", "/adapter NAME switches to one, /adapter off to none.")
        else:
            self._hint("There is no adapter yet.", "Make one in a shell: localllm finetune DATA --name NAME.")


def _ending(reason: str, usage: Usage, n_ctx: int) -> str:
    """The line under a reply: how it ended and what it cost."""
    full = usage.prompt_tokens + usage.output_tokens >= n_ctx - 1
    why = "the context is full" if full else "the most tokens allowed were written"
    cost = f"{usage.output_tokens} tokens · {usage.tokens_per_second:.1f} tokens/s"
    return ENDINGS[reason].format(why=why) + cost
