"""The model's answers for documents that are not finished: beside the output, so that a crash costs those on their way.

An answer is found again by a digest of all that it depends on. The file is only ever appended to, and now and then
replaced by one without the answers of finished documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localllm import jsonl
from localllm.store.files import write_atomically
from localllm.tasks.summary_plan import Answer, Step

ENOUGH = 1000
"""Answers that are needed no more and make it worth writing the file anew."""


class Journal:
    """Answers by key. Without a path they are not kept at all. One process at a time: see tasks/results.py."""

    def __init__(self, path: Path | None) -> None:
        """Raises StorageError where the file cannot be written."""
        self._path = path
        self._answers: dict[str, Answer] = {}
        self._done = 0
        self._appender: jsonl.Appender | None = None
        if path is not None:
            self._appender = jsonl.Appender(path)
            self._read(path)

    def get(self, key: str) -> Answer | None:
        return self._answers.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Have an answer on disk. Raises StorageError."""
        if self._appender is not None:
            self._appender.append({"key": key, **asdict(answer)})
            self._answers[key] = answer

    def forget(self, keys: Iterable[str]) -> None:
        """The row of the document that they are for is written. Raises StorageError."""
        for key in keys:
            self._done += self._answers.pop(key, None) is not None
        if self._done >= max(ENOUGH, len(self._answers)):
            self._shrink()

    def settle(self, keep: Iterable[str]) -> None:
        """The run is over: only these answers are still of use, and without any the file is not."""
        if self._path is None or self._appender is None:
            return
        wanted = set(keep)
        self._answers = {key: answer for key, answer in self._answers.items() if key in wanted}
        if self._answers:
            self._shrink()
            return
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the file as it is; safe to call twice."""
        if self._appender is not None:
            self._appender.close()

    def _read(self, path: Path) -> None:
        """What is no answer is passed over: it costs asking again."""
        with path.open("rb") as file:
            for raw in file:
                with suppress(ValueError, TypeError, AttributeError, KeyError):
                    row: dict[str, Any] = json.loads(raw)
                    key = str(row.pop("key"))
                    self._answers[key] = Answer(**row)

    def _shrink(self) -> None:
        assert self._path is not None
        assert self._appender is not None
        self._appender.close()
        lines = (json.dumps({"key": key, **asdict(answer)}) + "\n" for key, answer in self._answers.items())
        try:
            write_atomically(self._path, "".join(lines).encode())
        finally:
            self._appender = jsonl.Appender(self._path)
        self._done = 0


def step_key(settings: str, step: Step) -> str:
    """Digest of all that the answer to a step depends on."""
    return hashlib.sha256(f"{settings}\0{step.sampling!r}\0{step.prompt}".encode("utf-8", "surrogatepass")).hexdigest()
