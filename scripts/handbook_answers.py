"""What the program answers from the right entry: how often the answer holds the deciding sentence.

    python scripts/handbook_answers.py [--model guide.gguf] [--set tuning|heldout|blind] [--questions 120] [--looked-up]
                                       [--alone]

Questions are those of tests/handbook/questions, each asked greedily with its right entry in the layout of the program,
or with what the program finds. The blind ones name their deciding sentence; of the others it is the entry's first.
An answer is what the model says, held to the entry's sentences, with those that the search picks; see
localllm/tasks/reading.py. `--alone` measures the bare words of the model.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localllm.engine.base import Engine, Event
    from localllm.handbook.entries import Entry
    from localllm.tasks.looking_up import LookedUp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_NAMED = re.compile(r"--[a-z][a-z-]+|localllm [a-z]+|[\w/-]+\.(?:toml|jsonl|md|html|gguf|csv)")
LIMIT = 200
"""Tokens of an answer."""
SETS = {"tuning": ("newcomer", "expert", "nonnative"), "heldout": ("heldout",)}


@dataclass(frozen=True)
class Case:
    """A question, its right entry, and the sentence of it that answers."""

    question: str
    entry: Entry
    deciding: str


@dataclass
class Counts:
    """Of answers."""

    asked: int = 0
    deciding: int = 0
    """Those that hold the deciding sentence."""
    command: int = 0
    """Those that hold it, or the command that stands in it."""
    first: int = 0
    """Those that hold the first sentence of what was read."""
    sentences: int = 0
    """Those that are nothing but whole sentences of the entry."""
    not_said: int = 0
    """Those that say that the text does not say."""
    endless: int = 0
    whole: int = 0
    """Sentences that were said, in all answers."""
    invented: int = 0
    """Those that name an option, command or file that the entry does not."""

    def add(self, answer: str, case: Case, passage: Sequence[str], ended: bool) -> None:
        """Judge one answer by the sentences of what was read."""
        self.asked += 1
        command = re.search(r"`([^`]+)`", case.deciding)
        held = case.deciding.replace("`", "") in answer
        self.deciding += held
        self.command += held or bool(command and command[1] in answer)
        self.first += passage[0] in answer
        left = answer
        for sentence in sorted(passage, key=len, reverse=True):
            self.whole += sentence in left
            left = left.replace(sentence, "")
        self.sentences += bool(answer.strip()) and not left.strip()
        self.not_said += "does not say" in answer
        self.endless += not ended
        self.invented += any(name not in " ".join(passage) for name in _NAMED.findall(answer))


def cases(name: str) -> list[Case]:
    """The questions of a set that the handbook answers."""
    from localllm.handbook.entries import by_id
    from scripts.handbook_scores import QUESTIONS, read

    if name == "blind":
        rows = [json.loads(line) for line in (QUESTIONS / "blind.jsonl").read_text("utf-8").splitlines()]
        return [Case(r["question"], by_id()[r["entries"][0]], r["deciding"]) for r in rows if r.get("entries")]
    asked = [row for part in SETS[name] for row in read(part) if row.entries]
    found = [(row.question, by_id()[row.entries[0]]) for row in asked]
    return [Case(question, entry, entry.sentences[0]) for question, entry in found]


def answer(engine: Engine, found: LookedUp, alone: bool) -> tuple[str, bool]:
    """The greedy answer, and whether it ended by itself."""
    from localllm.engine.base import Finished, Request, TextDelta, stream
    from localllm.tasks import reading
    from localllm.types import Message, Sampling

    tokens = engine.encode_chat([Message("user", found.prompt)])
    request = Request(tuple(tokens), Sampling(max_tokens=LIMIT))

    def ask(cancel: threading.Event | None) -> Iterator[Event]:
        return stream(engine, request, cancel)

    events = list(ask(None) if alone else reading.answer(found, ask, threading.Event()))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, any(isinstance(event, Finished) and event.reason == "stop" for event in events)


def right_entry(case: Case) -> LookedUp | None:
    """Only the entry that answers."""
    from localllm.handbook.deciding import book
    from localllm.tasks.looking_up import LookedUp

    deciding = tuple(case.entry.readable[number] for number in book().deciding(case.question, case.entry))
    return LookedUp(case.question, (case.entry,), certainty=1.0, deciding=deciding, held=True)


def looked_up(case: Case) -> LookedUp | None:
    """What the program gives the model to read; None where it declines."""
    from localllm.tasks.looking_up import look_up

    found = look_up(case.question)
    return replace(found, held=True) if found and found.entries else None


def measure(
    model: Path, asked: list[Case], reads: Callable[[Case], LookedUp | None], *, alone: bool, show: bool
) -> Counts:
    """Ask all; a question that has nothing to read counts as asked only."""
    from localllm.engine.llama import LlamaEngine

    engine, counts = LlamaEngine.open(model, n_ctx=1024), Counts()
    for case in asked:
        found = reads(case)
        if found is None:
            counts.asked += 1
            continue
        text, ended = answer(engine, found, alone)
        counts.add(text, case, [sentence for entry in found.entries for sentence in entry.readable], ended)
        if show:
            print(f"{' ' if case.deciding.replace('`', '') in text else '*'} {case.question}\n    {text}")
    engine.close()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "guide.gguf")
    parser.add_argument("--set", choices=(*SETS, "blind"), default="tuning")
    parser.add_argument("--questions", type=int, default=120, help="at most so many, drawn with a fixed seed; 0: all")
    parser.add_argument("--looked-up", action="store_true", help="read what the search finds, not the right entry")
    parser.add_argument("--alone", action="store_true", help="what the model says, without the search's sentences")
    parser.add_argument("--show", action="store_true", help="print questions and answers")
    args = parser.parse_args()
    asked = cases(args.set)
    if 0 < args.questions < len(asked):
        asked = random.Random(0).sample(asked, args.questions)
    counts = measure(args.model, asked, looked_up if args.looked_up else right_entry, alone=args.alone, show=args.show)
    for name, value in vars(counts).items():
        print(f"{name:10} {value:>4} {value / counts.asked:>7.1%}")


if __name__ == "__main__":
    main()
