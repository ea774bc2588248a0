"""Answers from a server that speaks OpenAI's API; see endpoint_client.py."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

from localllm.tasks.answerer import Question, Reply
from localllm.tasks.endpoint_client import Client, Endpoint

_POLL = 0.1  # seconds between looks at `cancel`


class EndpointAnswerer:
    """See `Answerer`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client: Client | None = None
        self.name = endpoint.base
        self.settings: dict[str, Any] = {"endpoint": endpoint.base, "endpoint_model": endpoint.model}

    def answer(
        self, questions: Iterable[Question], cancel: threading.Event | None = None
    ) -> Iterator[tuple[Question, Reply]]:
        """Raises EngineError where the server cannot be reached or refuses the key."""
        waiting, more, under_way = iter(questions), True, 0
        client = self._client = Client(self._endpoint)
        try:
            while (more or under_way) and not (cancel is not None and cancel.is_set()):
                while more and under_way < self._endpoint.parallel:
                    question = next(waiting, None)
                    if question is None:
                        more = False
                    else:
                        under_way += 1
                        client.send(question)
                if (received := client.receive(_POLL)) is not None:
                    under_way -= 1
                    yield received
        finally:
            client.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
