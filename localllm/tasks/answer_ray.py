"""Answers from the machines of a Ray cluster, each with the model loaded; its file has to be on all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localllm.errors import EngineError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.answer_local import LocalAnswerer, local_answerer
from localllm.tasks.answerer import Question, Refusal, Reply
from localllm.tasks.ray_nodes import Cluster, Work, piece_for


class RayAnswerer:
    """See `Answerer`. All requests are read before the first is answered."""

    def __init__(self, cluster: Cluster, here: LocalAnswerer, options: dict[str, Any]) -> None:
        """`options` are the arguments of `local_answerer` that made `here`, which itself answers nothing."""
        self._cluster = cluster
        self._work = Work("localllm.tasks.answer_ray:start", {"options": options, "settings": here.settings})
        self.settings: dict[str, Any] = here.settings
        self.name = f"{here.name} on Ray"

    def answer(
        self, questions: Iterable[Question], cancel: threading.Event | None = None
    ) -> Iterator[tuple[Question, Reply]]:
        """Raises UsageError without a cluster, EngineError where a machine cannot answer, or Ray fails again and
        again."""
        asked = list(questions)
        items = [json.dumps(asdict(question)) for question in asked]
        for number, text in self._cluster.spread(items, self._work, piece=piece_for(len(items)), cancel=cancel):
            found = json.loads(text)
            refusal = Refusal(**found["refusal"]) if found["refusal"] else None
            yield asked[number], Reply(found["status"], found["body"], refusal)

    def close(self) -> None:
        """A round ends with its answers; nothing is left open."""


def start(options: dict[str, Any], settings: dict[str, Any]) -> Callable[[Sequence[str]], list[str]]:
    """Called on each machine. Raises EngineError where the same name stands for other files there."""
    answerer = local_answerer(Registry(Home.locate()), **options)
    if answerer.settings != settings:
        raise EngineError("it has another model or adapter of that name.", "Copy the same files to all machines.")

    def work(items: Sequence[str]) -> list[str]:
        questions = [Question(**json.loads(item)) for item in items]
        replies = {question.id: reply for question, reply in answerer.answer(questions)}
        return [json.dumps(asdict(replies[question.id])) for question in questions]

    return work


def elsewhere(name: str) -> str:
    """A model's or adapter's name as it can be said on another machine: a path in full."""
    return str(Path(name).resolve()) if Path(name).exists() else name
