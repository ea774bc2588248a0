"""One document on its way through its plan: which step is next, which answers are there, and the row in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from localllm.errors import LocalLLMError
from localllm.tasks.endpoint_client import UnreachableError
from localllm.tasks.summary_plan import Answer, Plan, Step
from localllm.tasks.summary_rows import add_costs, add_summary


class OpenDocument:
    """A document that has been read and whose row is not written yet."""

    def __init__(self, row: dict[str, Any], plan: Plan | None, size: int) -> None:
        """Without a plan (it could not be read) it is finished. `size` is its share of all that there is to do."""
        self.row, self.size = row, size
        self.finished = plan is None
        self.keys: list[str] = []
        """Of its answers in the journal."""
        self.deadline: float | None = None
        self.level = 0
        self._plan = plan
        self._steps: Iterator[Step] = iter(())  # what is left of the present level after `_next`
        self._next: Step | None = None
        self._begun = False
        self._answers: list[Answer | None] = []
        self._given = 0
        self._read_to = 0

    @property
    def source(self) -> str:
        return str(self.row["source"])

    @property
    def done(self) -> int:
        """Answers of the present level that are there."""
        return self._given

    @property
    def total(self) -> int | None:
        """Steps of the present level; None while there may be more."""
        return None if self._next is not None else len(self._answers)

    @property
    def share(self) -> float:
        """How much of the text has been read, from 0 to 1."""
        characters = self.row["characters"]
        return 1.0 if self.finished or not characters else self._read_to / characters

    def take(self) -> tuple[int, Step] | None:
        """The next step that can be asked now, with its number in the level; None where answers are waited for.

        What fails in making it makes the document fail. Raises UnreachableError where a server that counts is gone.
        """
        while not self.finished:
            if (step := self._next) is not None:
                self.level = step.level
                number = len(self._answers)
                self._answers.append(None)
                self._proceed(lambda: self._steps)
                return None if self.finished else (number, step)
            if self._given < len(self._answers):
                return None
            self._advance()
        return None

    def give(self, number: int, step: Step, answer: Answer) -> None:
        """The answer to a step."""
        if self.finished:
            return
        self._answers[number] = answer
        self._given += 1
        if step.chunk is not None:
            self._read_to = max(self._read_to, step.chunk.end)
        add_costs(self.row, [answer])

    def fail(self, error: LocalLLMError) -> None:
        """Its row is an error from now on."""
        self._end()
        self.row["error"] = f"{self.source}: {error}"

    def _advance(self) -> None:
        """Go on to the next level, or to the end."""
        assert self._plan is not None
        plan, answers = self._plan, [answer for answer in self._answers if answer is not None]
        self._answers, self._given = [], 0
        self._proceed((lambda: plan.send(answers)) if self._begun else (lambda: next(plan)))
        self._begun = True

    def _proceed(self, steps: Callable[[], Iterator[Step]]) -> None:
        """Look at the next of the steps, so that it is known which one is the last."""
        try:
            self._steps = steps()
            self._next = next(self._steps, None)
        except StopIteration as end:  # of the plan
            add_summary(self.row, end.value)
            self._end()
        except UnreachableError:  # in counting tokens; no document is to blame
            raise
        except LocalLLMError as error:
            self.fail(error)

    def _end(self) -> None:
        self.finished, self._next, self._answers = True, None, []
        if self._plan is not None:
            self._plan.close()
            self._plan = None
