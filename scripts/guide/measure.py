"""What the exported file does, asked through llama.cpp, greedily.

    python -m guide.measure GUIDE.gguf --corpus OUT/corpus.json --abstracts ABSTRACTS.jsonl [--plain GUIDE-f16.gguf]

ABSTRACTS holds rows with `source`, a list of sentences (SciTLDR's dev.jsonl); nothing of it is trained on.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llama_cpp import Llama

from . import corpus, mix, questions, records, talk, words
from .passages import Source
from .summarize import Messages, message
from .tokenizer import render

SUMMARIZE = "Summarize the following text in one sentence.\n\n"
LIMIT = 200
"""Tokens of an answer; an answer that reaches it counts as a loop."""


@dataclass
class Reader:
    """A model file that answers."""

    model: Llama

    @classmethod
    def open(cls, path: Path) -> "Reader":
        """Load a file."""
        return cls(Llama(str(path), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False))

    def answer(self, messages: Messages) -> tuple[str, bool]:
        """The greedy answer, and whether it ended by itself."""
        ids = self.model.tokenize(render(messages, answer_next=True).encode(), add_bos=False, special=True)
        found: list[int] = []
        self.model.reset()
        for token in self.model.generate(ids, temp=0.0, repeat_penalty=1.0):
            if token == self.model.token_eos():
                return self.model.detokenize(found).decode(errors="replace"), True
            found.append(token)
            if len(found) == LIMIT:
                break
        return self.model.detokenize(found).decode(errors="replace"), False


def rouge_l(guess: str, truth: str) -> float:
    """F1 of the longest common subsequence of words."""
    a, b = guess.lower().split(), truth.lower().split()
    row = [0] * (len(b) + 1)
    for x in a:
        previous = 0
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], previous + 1 if x == y else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(a) + len(b)) if a and b else 0.0


def read_abstracts(path: Path, count: int) -> list[list[str]]:
    """The first abstracts of three sentences or more."""
    rows = [json.loads(line)["source"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [[s.strip() for s in row] for row in rows if len(row) >= 3][:count]


def leads(reader: Reader, abstracts: list[list[str]]) -> tuple[dict[str, float], list[str]]:
    """Shares of exact leads, of any exact sentence, of empty and endless answers; ROUGE-L against the lead."""
    answers, ended = zip(*(reader.answer([message("user", SUMMARIZE + " ".join(a))]) for a in abstracts), strict=True)
    pairs, n = list(zip(answers, abstracts, strict=True)), len(abstracts)
    return {
        "lead": sum(g == a[0] for g, a in pairs) / n,
        "any sentence": sum(g in a for g, a in pairs) / n,
        "empty": sum(not g.strip() for g in answers) / n,
        "endless": sum(not e for e in ended) / n,
        "ROUGE-L": sum(rouge_l(g, a[0]) for g, a in pairs) / n,
    }, list(answers)


def _turns(conversations: Iterator[Messages]) -> Iterator[tuple[Messages, str]]:
    for conversation in conversations:
        for i, turn in enumerate(conversation):
            if turn["role"] == "assistant":
                yield conversation[:i], turn["content"]


def exact(reader: Reader, conversations: Iterator[Messages]) -> dict[str, float]:
    """Shares of exact answers, those to unanswerable questions apart."""
    counts: dict[str, list[bool]] = {}
    for history, truth in _turns(conversations):
        kind = "not said" if truth == questions.NOT_SAID else "answered"
        counts.setdefault(kind, []).append(reader.answer(history)[0] == truth)
    return {f"{kind} of {len(found)}": sum(found) / len(found) for kind, found in sorted(counts.items())}


WRITTEN = [
    (
        "The library opens at nine on weekdays and at ten on Saturdays. It is closed on Sundays. Members may "
        "borrow up to eight books.",
        [("When does the library open?", 0), ("How many books may I borrow?", 2), ("Is it open on Sundays?", 1)],
    ),
    (
        "Marie planted three apple trees behind the barn. The goats ate two of them in May. She has put up a fence "
        "since then.",
        [("What did Marie plant?", 0), ("What did the goats do?", 1), ("What has she built since then?", 2)],
    ),
    (
        "An adapter is a small file that changes how a model answers. It is attached to the base model without "
        "changing it. "
        "You can switch it off in the middle of a conversation.",
        [
            ("What is an adapter?", 0),
            ("Does attaching an adapter change the base model?", 1),
            ("Can I switch the adapter off?", 2),
        ],
    ),
    (
        "Press Ctrl+N to start a new chat. Press Ctrl+R to regenerate the last answer. Press Escape to stop an "
        "answer while it is written.",
        [("How do I start a new chat?", 0), ("How can I regenerate an answer?", 1), ("How do I stop an answer?", 2)],
    ),
    (
        "The ferry leaves the harbour every two hours. Tickets cost twelve euros and are sold on board. Dogs "
        "travel free of charge.",
        [("How often does the ferry leave?", 0), ("How much is a ticket?", 1), ("Can I take my dog?", 2)],
    ),
    (
        "To export an adapter, run localllm export. The file is written in the current folder. Existing files are "
        "never overwritten.",
        [("How do I export an adapter?", 0), ("Where is the file written?", 1), ("Will it overwrite my files?", 2)],
    ),
]
"""Passages and questions in other words than the generators use: (question, index of the deciding sentence)."""


def written(reader: Reader) -> tuple[int, int]:
    """How many of the hand-written questions are answered with exactly the deciding sentence."""
    asked = [(f"{q}\n\n{text}", corpus.split_sentences(text)[i]) for text, pairs in WRITTEN for q, i in pairs]
    return sum(reader.answer([message("user", q)])[0] == truth for q, truth in asked), len(asked)


TALK = [
    ("Hi!", talk.HELLO),
    ("hello", talk.HELLO),
    ("Good evening", talk.HELLO),
    ("Thank you so much", talk.WELCOME),
    ("Thanks!", talk.WELCOME),
    ("Bye", talk.GOODBYE),
    ("Who are you?", talk.WHO),
    ("What can you do?", talk.WHO),
    ("what are you able to do", talk.WHO),
    ("What is the capital of Sweden?", talk.CANNOT),
    ("Who was Napoleon?", talk.CANNOT),
    ("Write me a song about rain", talk.CANNOT),
]


def report(reader: Reader, source: Source, abstracts: list[list[str]], count: int) -> Iterator[str]:
    """One line for each measurement."""
    rng = Random(7)
    if abstracts:
        yield f"abstracts, of {len(abstracts)}: {leads(reader, abstracts)[0]}"
        invented = [words.with_invented(rng, a, 0.5) for a in abstracts]
        yield f"the same, half of the long words invented: {leads(reader, invented)[0]}"
    kinds = {"questions": questions.about, "records": records.extract}
    for name, kind in kinds.items():
        yield f"{name}: {exact(reader, (kind(rng, source) for _ in range(count)))}"
    yield "hand-written questions: {} of {}".format(*written(reader))
    right = [reader.answer([message("user", q)])[0] == a for q, a in TALK]
    yield f"talk: {sum(right)} of {len(right)}; wrong: {[q for (q, _), ok in zip(TALK, right, strict=True) if not ok]}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--abstracts", type=Path)
    parser.add_argument("--plain", type=Path, help="the unquantized file, to compare answers with")
    parser.add_argument("--count", type=int, default=100, help="generated conversations of each kind")
    args = parser.parse_args()
    _, held_out = mix.divide(corpus.load(args.corpus))
    abstracts = read_abstracts(args.abstracts, 50) if args.abstracts else []
    reader = Reader.open(args.model)
    for line in report(reader, held_out, abstracts, args.count):
        print(line, flush=True)
    if args.plain and abstracts:
        ours, theirs = leads(reader, abstracts)[1], leads(Reader.open(args.plain), abstracts)[1]
        print(f"same answer as unquantized: {sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)}")


if __name__ == "__main__":
    main()
