"""Conversations that ask about a passage: the answer is the deciding sentence, or its span where that is asked for."""

import re
from random import Random

from . import facts, passages, talk
from .passages import Source
from .summarize import Messages, message, system
from .words import pick

NOT_SAID = "The text does not say."
_SHORT = (
    " Answer in a few words.| Answer briefly, with the words of the text only.| Give only the answer.|"
    " Short answer only.| Just the answer, please."
)
_STOP = frozenset(
    [
        "about",
        "above",
        "after",
        "again",
        "against",
        "because",
        "before",
        "being",
        "below",
        "between",
        "could",
        "doing",
        "during",
        "every",
        "first",
        "further",
        "having",
        "however",
        "itself",
        "other",
        "return",
        "returns",
        "should",
        "something",
        "their",
        "there",
        "these",
        "thing",
        "things",
        "those",
        "through",
        "under",
        "until",
        "using",
        "value",
        "values",
        "whether",
        "which",
        "while",
        "within",
        "without",
        "would",
        "where",
        "when",
        "given",
        "instead",
        "since",
        "either",
        "neither",
        "rather",
        "might",
        "cannot",
    ]
)
_ABOUT = (
    "What does the text say about {k}?|What does it say about {k}?|What is said about {k}?|What about {k}?|Tell me "
    "about {k}.|"
    "What do we learn about {k}?|Which sentence is about {k}?|Where is {k} mentioned?|What does the text tell us "
    "about {k}?|{k}?|"
    "Is there anything about {k}?|What is written about {k}?|Explain {k}.|What do I need to know about {k}?"
)
_VERBS = (
    "returns|provides|uses|contains|allows|supports|requires|creates|takes|gives|holds|represents|includes|needs|"
    "accepts|stores|"
    "specifies|computes|describes|indicates|defines|handles|adds|removes|reads|writes|changes|makes|expects|raises|"
    "produces|converts"
)
_IS = re.compile(r"^((?:The|A|An) (?:[\w-]+ ){1,4}?)(is|are|was|were) \w+")
_DOES = re.compile(rf"^((?:The|A|An|This) (?:[\w-]+ ){{1,4}}?)({_VERBS}) \w+")
_CLAUSE = re.compile(r"^(To|If|When) ([^,;:()]{8,60}), ")


def keyword(rng: Random, sentence: str, others: str) -> str | None:
    """One to three words with a long word that occurs in this sentence only."""
    tokens = re.findall(r"[A-Za-z][\w'-]*", sentence)
    rare = [
        i for i, w in enumerate(tokens) if len(w) > 5 and w.lower() not in _STOP and w.lower() not in others.lower()
    ]
    if not rare:
        return None
    at = rng.choice(rare)
    low, high = max(0, at - rng.choice((0, 0, 1, 2))), min(len(tokens), at + rng.choice((1, 1, 2)))
    phrase = " ".join(tokens[low:high])
    if phrase not in sentence:
        phrase = tokens[at]
    return phrase[0].lower() + phrase[1:] if phrase[1:].islower() and rng.random() < 0.8 else phrase


def prose_question(rng: Random, sentence: str, others: str) -> str | None:
    """A question that this sentence answers and the other ones do not."""
    phrase = keyword(rng, sentence, others)
    if phrase is None:
        return None
    if found := _CLAUSE.match(sentence):
        start, rest = found.groups()
        if start == "To":
            return f"{pick(rng, 'How do I|How can I|How to|What must I do to')} {rest}?"
        return f"What happens {start.lower()} {rest}?"
    if (found := _IS.match(sentence)) and rng.random() < 0.8:
        subject = found[1].strip()
        return f"What {found[2]} {subject[0].lower() + subject[1:]}?"
    if (found := _DOES.match(sentence)) and rng.random() < 0.8:
        subject, verb = found[1].strip(), found[2]
        return f"What does {subject[0].lower() + subject[1:]} {verb[:-1] if verb != 'does' else 'do'}?"
    question = pick(rng, _ABOUT).format(k=phrase)
    return question[0].upper() + question[1:]


def wrap(rng: Random, text: str, question: str) -> str:
    """A passage and a question in one of the usual layouts."""
    kind = rng.random()
    if kind < 0.3:
        head = pick(rng, "Context|Context|Text|Passage|Document|Excerpt|Article|Notes")
        between = pick(rng, ":\n|: |:\n\n")
        return f"{head}{between}{text}\n\n{pick(rng, 'Question|Question|Question|Q')}: {question}" + pick(
            rng, "|||\nAnswer:|\n\nAnswer:|\nA:"
        )
    if kind < 0.5:
        ask_first = pick(
            rng,
            "Answer the question from the text.|Answer the question using only the text.|Read the text and answer "
            "the question.|"
            "Use the following text to answer the question.|Answer from this text only.|Use only this text.|Read this.",
        )
        if rng.random() < 0.5:
            return f"{ask_first}\n\n{text}\n\n{pick(rng, 'Question: ||')}{question}"
        head = pick(rng, "Text: |Text:\n|Context: |")
        return f"{ask_first}\n\nQuestion: {question}\n\n{head}{text}"
    if kind < 0.75:
        return f"{text}\n\n{question}"
    return f"{question}\n\n{text}"


def _fact_passage(rng: Random, source: Source) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Sentences, and (question, sentence, span) for those of them that state a fact."""
    drawn = [facts.draw(rng) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5, 7)))]
    lines = [f.statement for f in drawn]
    if rng.random() < 0.25:
        filler = passages.sentences(rng, source, rng.randint(1, 4))
        for sentence in filler:
            lines.insert(rng.randint(0, len(lines)), sentence)
    asked = [
        (f.question, f.statement, f.span)
        for f in drawn
        if sum(f.question.rstrip("?") in o.question for o in drawn) == 1
    ]
    return lines, asked


def _prose_passage(rng: Random, source: Source) -> tuple[list[str], list[tuple[str, str, str]]]:
    lines = passages.sentences(rng, source, passages.count(rng, 2))
    asked = []
    for i, sentence in enumerate(lines):
        others = " ".join(lines[:i] + lines[i + 1 :])
        question = prose_question(rng, sentence, others)
        if question and question.rstrip("?") not in others:
            asked.append((question, sentence, ""))
    return lines, asked


def _unanswered(rng: Random, source: Source, text: str) -> str | None:
    """A question whose subject the text does not mention."""
    if rng.random() < 0.5:
        question = facts.draw(rng).question
        named = [w.strip("?.'") for w in question.split()[1:] if w[0].isupper() or len(w) > 6]
        return question if named and not any(w in text for w in named) else None
    sentence = source.sentences(rng, 1)[0]
    return prose_question(rng, sentence, text)


def about(rng: Random, source: Source) -> Messages:
    """A passage and one to four questions, one after the other; sometimes one that the passage does not answer."""
    lines, asked = _fact_passage(rng, source) if rng.random() < 0.55 else _prose_passage(rng, source)
    text = passages.notes(rng, lines) if rng.random() < 0.1 else passages.layout(rng, lines)
    rng.shuffle(asked)
    turns: list[tuple[str, str]] = []
    for question, sentence, span in asked[: rng.choice((1, 1, 2, 3, 4))]:
        short = span and rng.random() < 0.3
        turns.append((question + pick(rng, _SHORT), span) if short else (question, sentence))
    if not turns or rng.random() < 0.25:
        missing = _unanswered(rng, source, text)
        if missing:
            turns.insert(rng.randint(0, len(turns)), (missing, NOT_SAID))
    if not turns:
        turns = [("What does the text say first?", lines[0])]
    if rng.random() < 0.06:
        turns.append(
            (
                pick(rng, "Summarize the text.|And the main point?|Sum it up.|Now summarize it in one sentence."),
                lines[0],
            )
        )
    return _conversation(rng, text, turns)


def absent(rng: Random, source: Source) -> Messages:
    """A passage of any sort and one question that it does not answer, in the layout of the program."""
    lines = _fact_passage(rng, source)[0] if rng.random() < 0.3 else passages.sentences(rng, source, rng.randint(2, 6))
    text = passages.layout(rng, lines)
    for _ in range(10):
        missing = talk.world_question(rng) if rng.random() < 0.4 else _unanswered(rng, source, text)
        if missing and not any(len(w) > 4 and w in text for w in re.findall(r"\w+", missing)):
            break
    else:
        return about(rng, source)
    asked = f"{text}\n\n{missing}" if rng.random() < 0.7 else wrap(rng, text, missing)
    return [*system(rng, 0.05), message("user", asked), message("assistant", NOT_SAID)]


def _conversation(rng: Random, text: str, turns: list[tuple[str, str]]) -> Messages:
    (first, answer), rest = turns[0], turns[1:]
    kind = rng.random()
    if kind < 0.15:
        head = pick(
            rng, "Answer from this text:\n\n|Use this text to answer:\n\n|Text:\n\n|Context:\n\n|You know this:\n\n|"
        )
        opening = [message("system", head + text), message("user", first), message("assistant", answer)]
    else:
        opening = [*system(rng), message("user", wrap(rng, text, first)), message("assistant", answer)]
    for question, reply in rest:
        opening += [message("user", question), message("assistant", reply)]
    return opening
