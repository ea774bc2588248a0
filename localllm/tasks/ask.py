"""One question, one answer; or, with a model that has no chat template, a text and how it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from localllm.engine.base import Engine, Event, Request, stream
from localllm.types import Message, Sampling


def ask(
    engine: Engine,
    prompt: str,
    sampling: Sampling,
    *,
    system: str | None = None,
    continue_text: bool = False,
    cancel: threading.Event | None = None,
) -> Iterator[Event]:
    """Events of one answer. `continue_text`, or a model without a chat template, takes the prompt as it is.

    Raises ContextOverflowError before anything is decoded, GrammarError, TemplateError, UsageError.
    """
    if continue_text or not engine.info.has_template:
        tokens = engine.tokenize(f"{system}\n\n{prompt}" if system else prompt)
    else:
        turns = [Message("system", system)] if system else []
        tokens = engine.encode_chat([*turns, Message("user", prompt)])
    return stream(engine, Request(tuple(tokens), sampling), cancel)
