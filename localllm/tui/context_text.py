"""The context in words: how full it is, what is in it, what would go first, and when."""

from __future__ import annotations

from collections.abc import Sequence

from localllm.store.chats.records import Turn
from localllm.store.chats.turns import title_from
from localllm.tui.events import ChatState


def context_text(state: ChatState, branch: Sequence[Turn]) -> str:
    """For the context's dialog."""
    used, total = state.context_used, state.n_ctx
    share = used / total if total else 0
    lines = [f"{used} of {total} tokens are in use ({share:.0%}); {max(0, total - used)} are left for what follows."]
    sent = len(branch) - state.left_out
    told = "and summarized" if state.settings.summary and state.left_out else "and still in the list"
    left_out = f", {state.left_out} are left out {told}" if state.left_out else ""
    lines.append(f"{sent} messages are sent to the model{left_out}.")
    if state.settings.summary and state.left_out:
        lines.append(f"The summary: {state.settings.summary}")
    if state.system:
        lines.append(f"The system prompt always goes first: {title_from(state.system)}")
    oldest = next((turn for turn in branch[state.left_out :] if turn.role == "user"), None)
    lines.append("Nothing is left out unless you say so. When the next message no longer fits you are asked.")
    if oldest is not None and sent > 2:
        lines.append(f'The first to go would be: "{title_from(oldest.content)}"')
    return "\n".join(lines)
