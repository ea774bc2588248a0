"""What an empty conversation shows: which model this is, and what to try."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from localllm.tui.events import ChatState


class Welcome(Static):
    """The loading line, then the welcome."""

    def __init__(self, model: str, *, first: bool = False) -> None:
        """`first` for somebody who has never been here."""
        super().__init__(Content(f"Opening {model or 'the model'} …"), markup=False)
        self.first = first

    def show(self, state: ChatState) -> None:
        """Introduce the model."""
        self.update(welcome(state, first=self.first))


def welcome(state: ChatState, *, first: bool = False) -> Content:
    """The welcome text for a model."""
    facts = f"{_count(state.parameters)} parameters · {state.n_ctx} tokens of context · runs on this machine only"
    lines: list[Content | str | tuple[str, str]] = [(state.title, "bold"), "\n"]
    if state.description:
        lines += [state.description, "\n"]
    lines += [(facts, "dim"), "\n\n", ("Things to try", "bold")]
    for number, (what, how) in enumerate(_suggestions(state), 1):
        lines += [f"\n {number}  {what}  ", (how, "dim")]
    if first:
        lines += ["\n\n", ("New here?", "bold"), "  F1 has the keys, Ctrl+P every action by name.\n"]
        lines += ["Everything you say is kept in a list (F3), on this machine; nothing is sent anywhere."]
    if not state.saved:
        lines += ["\n\n", ("Conversations are not saved this time.", "bold")]
    return Content.assemble(*lines)


def _suggestions(state: ChatState) -> list[tuple[str, str]]:
    """Three things to try: what to type, and a word about it."""
    adapter = (
        (f"/adapter {state.adapters[0]}", "switch it on at any time, Ctrl+T toggles it")
        if state.adapters
        else ("localllm finetune DATA --name NAME", "in a shell: teach it, then /adapter NAME here")
    )
    question = (
        ("How do I get a larger model?", "looked up in the handbook")
        if state.handbook
        else ("Who are you?", "type a question and press Enter")
    )
    return [
        question,
        ("@notes.md What is this about?", "a file in your message"),
        adapter,
    ]


def _count(n: int) -> str:
    """A number of parameters as people say it."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)
