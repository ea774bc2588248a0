"""What a server serves, as far as whole documents need to know it: the model, its context, and how tokens are counted.

No two servers tell it the same way. What one does not tell is asked of the person, and never guessed: a prompt that is
too long would be refused by a good server and cut off by a bad one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localllm.errors import EngineError, UsageError
from localllm.tasks.answerer import CHAT, Reply
from localllm.tasks.endpoint_client import Client

_MODELS, _TOKENIZE = "/v1/models", "/tokenize"
_FRAME = 256
"""Tokens that a chat template may write around a prompt, for a server that does not say how many it read."""
_PROBE = "Two words."
_MOST_NAMES = 8

Count = Callable[[str], int]


@dataclass(frozen=True)
class Served:
    """A model as it is served."""

    model: str
    n_ctx: int
    """Tokens of a prompt and its answer together."""
    count: Count
    """Tokens of a text. Raises EngineError where the server is asked and gives no answer."""
    frame: int
    """Tokens that the chat template writes around a prompt."""
    counted_by: str
    """Whose counts these are, as it is said to a person; empty where bytes stand in for tokens."""
    exact: bool
    """Whether the counts are the server's own."""


def introduce(client: Client, n_ctx: int | None = None, vocabulary: tuple[str, Count] | None = None) -> Served:
    """Ask a server what it serves. `n_ctx` is the context the person says it has, `vocabulary` a model's name and its
    count, to be used instead of the server's.

    Raises EngineError for a server that cannot be reached or does not answer, UsageError for what it does not tell.
    """
    entry = _entry(client)
    model = str(entry["id"])
    size = _context(client, entry, n_ctx)
    name, count, exact = _counting(client, model, vocabulary)
    return Served(model, size, count, _frame(client, model, count if exact else None), name, exact)


def _entry(client: Client) -> dict[str, Any]:
    """What the server says of the model that is to be asked. Raises UsageError where there are several."""
    wanted = client.endpoint.model
    reply = client.ask(_MODELS)
    listed = (reply.body or {}).get("data") if not reply.refusal else None
    models = listed if isinstance(listed, list) else []
    entries = [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
    if wanted is not None:
        return next((entry for entry in entries if entry["id"] == wanted), {"id": wanted})
    if len(entries) != 1:
        names = ", ".join(entry["id"] for entry in entries[:_MOST_NAMES])
        what = f"serves {len(entries)} models: {names}" if entries else "does not say which models it serves"
        raise UsageError(f"{client.endpoint.base} {what}.", "Name one with --endpoint-model.")
    return entries[0]


def _context(client: Client, entry: dict[str, Any], asked: int | None) -> int:
    """Raises UsageError where neither the server nor the person says it, or the person says more than the server."""
    meta = entry.get("meta")
    said = _size(entry.get("max_model_len")) or _size(meta.get("n_ctx") if isinstance(meta, dict) else None)
    if said is None:
        settings = (client.ask("/props").body or {}).get("default_generation_settings")
        said = _size(settings.get("n_ctx") if isinstance(settings, dict) else None)
    if said is None:
        if asked is None:
            message = f"{client.endpoint.base} does not say how long its context is."
            raise UsageError(message, "Say it with --ctx N; it must not be more than the server really has.")
        return asked
    if asked is not None and asked > said:
        message = f"--ctx {asked} is not possible: {client.endpoint.base} has a context of {said} tokens."
        raise UsageError(message, f"Choose 1 to {said}.")
    return asked or said


def _counting(client: Client, model: str, vocabulary: tuple[str, Count] | None) -> tuple[str, Count, bool]:
    if vocabulary is not None:
        return f"the vocabulary of {vocabulary[0]}", vocabulary[1], False
    for shape in (_as_llama_server, _as_vllm):
        count = _by_server(client, model, shape)
        try:
            if count(_PROBE) > 1:
                return "the server", count, True
        except EngineError:
            continue
    return "", lambda text: len(text.encode("utf-8", "replace")), False


def _as_llama_server(_: str, text: str) -> dict[str, Any]:
    return {"content": text, "add_special": False, "parse_special": False}


def _as_vllm(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "prompt": text, "add_special_tokens": False}


def _by_server(client: Client, model: str, shape: Callable[[str, str], dict[str, Any]]) -> Count:
    def count(text: str) -> int:
        reply = client.ask(_TOKENIZE, shape(model, text))
        tokens = (reply.body or {}).get("tokens")
        if reply.refusal or not isinstance(tokens, list):
            said = f": {reply.refusal.message}" if reply.refusal else "."
            raise EngineError(f"The server does not count tokens{said}", "Run the same command again.")
        return len(tokens)

    return count


def _frame(client: Client, model: str, count: Count | None) -> int:
    """Seen in the smallest of questions, which also shows whether the server answers at all. Without exact counts the
    question is taken for a part of the frame."""
    body = {"model": model, "messages": [{"role": "user", "content": _PROBE}], "max_tokens": 1, "temperature": 0}
    reply: Reply = client.ask(CHAT, body)
    if reply.refusal:
        message = f"{client.endpoint.base} does not answer. {reply.refusal.message}"
        raise EngineError(message, "Look at its messages; --endpoint-model names the model.")
    read = reply.tokens[0]
    return max(0, read - (count(_PROBE) if count else 0)) if read else _FRAME


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
