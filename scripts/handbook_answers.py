"""What the built-in model makes of the right entry: how often its answer holds the deciding sentence.

    python scripts/handbook_answers.py [--model guide.gguf] [--questions 120] [--show]

Questions are those of tests/handbook/questions, each asked with its right entry in the layout of the program, greedily.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_NAMED = re.compile(r"--[a-z][a-z-]+|localllm [a-z]+|[\w/-]+\.(?:toml|jsonl|md|html|gguf|csv)")
LIMIT = 200
"""Tokens of an answer."""


@dataclass
class Counts:
    """Of answers."""

    asked: int = 0
    deciding: int = 0
    """Those that hold the first sentence of the entry."""
    command: int = 0
    """Those that hold it, or the command that stands in it."""
    sentences: int = 0
    """Those that are nothing but whole sentences of the entry."""
    not_said: int = 0
    """Those that say that the text does not say."""
    endless: int = 0
    invented: int = 0
    """Those that name an option, command or file that the entry does not."""

    def add(self, answer: str, passage: list[str], command: str, ended: bool) -> None:
        """Judge one answer by the sentences of the entry; `command` is the one in its first, if there is one."""
        self.asked += 1
        self.deciding += passage[0] in answer
        self.command += passage[0] in answer or bool(command and command in answer)
        left = answer
        for sentence in passage:
            left = left.replace(sentence, "")
        self.sentences += bool(answer.strip()) and not left.strip()
        self.not_said += "does not say" in answer
        self.endless += not ended
        self.invented += any(name not in " ".join(passage) for name in _NAMED.findall(answer))


def measure(model: Path, number: int, show: bool) -> Counts:
    """Ask `number` questions, drawn with a fixed seed."""
    from localllm.engine.base import Finished, Request, TextDelta, stream
    from localllm.engine.llama import LlamaEngine
    from localllm.handbook.context import prompt
    from localllm.handbook.entries import by_id
    from localllm.types import Message, Sampling
    from scripts.handbook_scores import read

    asked = [row for name in ("newcomer", "expert", "nonnative", "heldout") for row in read(name) if row.entries]
    engine, counts = LlamaEngine.open(model, n_ctx=1024), Counts()
    for row in random.Random(0).sample(asked, min(number, len(asked))):
        entry = by_id()[row.entries[0]]
        tokens = engine.encode_chat([Message("user", prompt(row.question, [entry]))])
        events = list(stream(engine, Request(tuple(tokens), Sampling(max_tokens=LIMIT)), None))
        answer = "".join(event.text for event in events if isinstance(event, TextDelta))
        ended = any(isinstance(event, Finished) and event.reason == "stop" for event in events)
        command = re.search(r"`([^`]+)`", entry.sentences[0])
        passage = [sentence.replace("`", "") for sentence in entry.sentences]
        counts.add(answer, passage, command[1] if command else "", ended)
        if show:
            print(f"{row.question}\n  {answer}")
    engine.close()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "guide.gguf")
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--show", action="store_true", help="print questions and answers")
    args = parser.parse_args()
    counts = measure(args.model, args.questions, args.show)
    for name, value in vars(counts).items():
        print(f"{name:10} {value:>4} {value / counts.asked:>7.1%}")


if __name__ == "__main__":
    main()
