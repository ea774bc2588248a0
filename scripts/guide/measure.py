"""What the exported file does, asked through llama.cpp, greedily.

    python -m guide.measure GUIDE.gguf --corpus OUT/corpus.json --abstracts ABSTRACTS.jsonl [--plain GUIDE-f16.gguf]

ABSTRACTS holds rows with `source`, the lines of an abstract, and `target`, its references (SciTLDR's dev.jsonl);
nothing of it is trained on. Answers about the handbook are counted by scripts/handbook_answers.py.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llama_cpp import Llama

from localllm.evaluate.summaries import nearest
from localllm.tasks.summary_prompts import Prompts, Wish

from . import book, corpus, manual, mix, questions, records, talk, words
from .passages import Source
from .summarize import Messages, message
from .tokenizer import render

SUMMARIZE = "Summarize the following text in one sentence.\n\n"
LIMIT = 200
"""Tokens of an answer; an answer that reaches it counts as a loop."""
_ENDED = re.compile(r"[.!?][\"')\]]*$")


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


@dataclass(frozen=True)
class Abstract:
    """A text to summarize."""

    sentences: list[str]
    references: list[str]


def read_abstracts(path: Path, count: int) -> list[Abstract]:
    """The first of three lines or more."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Abstract(whole(row["source"]), row["target"]) for row in rows if len(row["source"]) >= 3][:count]


def whole(lines: list[str]) -> list[str]:
    """Whole sentences: the data cuts a few abstracts at the ends of lines, in the middle of a sentence."""
    found: list[str] = []
    for line in lines:
        if found and not _ENDED.search(found[-1]):
            found[-1] += " " + line.strip()
        else:
            found.append(line.strip())
    return found


def summarized(
    reader: Reader, abstracts: list[Abstract], ask: Callable[[str], str]
) -> tuple[dict[str, float], list[str]]:
    """Shares of exact leads, any one whole sentence, empty and endless answers; ROUGE-L beside that of the lead."""
    texts = [ask(" ".join(a.sentences)) for a in abstracts]
    answers, ended = zip(*(reader.answer([message("user", text)]) for text in texts), strict=True)
    pairs, n = list(zip(answers, abstracts, strict=True)), len(abstracts)
    score = sum(nearest(g, a.references).rougeL for g, a in pairs) / n
    lead = sum(nearest(a.sentences[0], a.references).rougeL for a in abstracts) / n
    return {
        "lead": sum(g == a.sentences[0] for g, a in pairs) / n,
        "one whole sentence": sum(g in a.sentences for g, a in pairs) / n,
        "empty": sum(not g.strip() for g in answers) / n,
        "endless": sum(not e for e in ended) / n,
        "ROUGE-L": round(score, 4),
        "of the lead": round(lead, 4),
        "ratio": round(score / lead, 4),
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


ABSENT = [
    ("Who is the mayor of the town?", 0),
    ("How many goals did the team score?", 1),
    ("What is the recipe for pancakes?", 2),
    ("When was the bridge built?", 3),
    ("Which vitamin is in oranges?", 4),
    ("What is the capital of Norway?", 5),
    ("How tall is the tower?", 0),
    ("Who won the chess tournament?", 1),
    ("Which planet is the largest?", 2),
    ("What colour is the flag?", 3),
    ("Why did the king resign?", 4),
    ("What language is spoken in Brazil?", 5),
]
"""Questions, and the number of the passage of WRITTEN that does not answer them."""


def declined(reader: Reader) -> tuple[int, int]:
    """How many questions that a passage does not answer are declined."""
    asked = [f"{WRITTEN[at][0]}\n\n{question}" for question, at in ABSENT]
    return sum(reader.answer([message("user", q)])[0] == questions.NOT_SAID for q in asked), len(asked)


def forms(abstracts: list[Abstract]) -> Iterator[tuple[str, list[Abstract], Callable[[str], str]]]:
    """Ways to ask for summaries: names, texts and prompts."""
    rng = Random(7)
    invented = [Abstract(words.with_invented(rng, a.sentences, 0.5), a.references) for a in abstracts]
    prompts = Prompts(Wish())
    yield "abstracts, in one sentence", abstracts, SUMMARIZE.__add__
    yield "abstracts, as summarize asks", abstracts, lambda text: prompts.text(text, final=True)
    yield "half of the long words invented", invented, SUMMARIZE.__add__


def speed(reader: Reader, abstracts: list[Abstract]) -> float:
    """Generated tokens a second over whole answers, the reading of the prompts included."""
    started, count = time.perf_counter(), 0
    for abstract in abstracts:
        answer, _ = reader.answer([message("user", SUMMARIZE + " ".join(abstract.sentences))])
        count += len(reader.model.tokenize(answer.encode(), add_bos=False)) + 1
    return count / (time.perf_counter() - started)


def report(reader: Reader, source: Source, count: int) -> Iterator[str]:
    """One line for each measurement of what needs no data from elsewhere."""
    rng = Random(7)
    kinds = {
        "questions": questions.about,
        "instructions": manual.read,
        "handbook": book.read,
        "records": records.extract,
    }
    for name, kind in kinds.items():
        yield f"generated {name}: {exact(reader, (kind(rng, source) for _ in range(count)))}"
    yield "hand-written questions: {} of {}".format(*written(reader))
    yield "declined as not in the text: {} of {}".format(*declined(reader))
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
    abstracts = read_abstracts(args.abstracts, 50) if args.abstracts else []
    reader = Reader.open(args.model)
    same = total = 0
    for name, texts, ask in forms(abstracts) if abstracts else ():
        found, answers = summarized(reader, texts, ask)
        print(f"{name}: {found}", flush=True)
        if args.plain:
            theirs = summarized(Reader.open(args.plain), texts, ask)[1]
            same, total = same + sum(a == b for a, b in zip(answers, theirs, strict=True)), total + len(answers)
    if total:
        print(f"same answer as unquantized: {same} of {total}, {same / total:.1%}")
    _, held_out = mix.divide(corpus.load(args.corpus))
    for line in report(reader, held_out, args.count) if args.count else ():
        print(line, flush=True)
    if abstracts:
        print(f"{speed(reader, abstracts):.0f} tokens a second with one thread")


if __name__ == "__main__":
    main()
