"""Conversations that ask for the main point of a passage: the answer is its leading sentence, word for word."""

from random import Random

from localllm.tasks.summary_prompts import LENGTHS, STYLES, Prompts, Wish

from . import passages
from .passages import Source
from .words import pick

Messages = list[dict[str, str]]
COMBINE = "Combine these summaries of the parts of one text, in order, into one short summary."

_VERBS = (
    "Summarize|Summarize|Summarize|Summarize|Summarise|Sum up|Give the main point of|Give the main idea of|Give a "
    "summary of|Shorten|Condense|"
    "Write a summary of|Write a short summary of|Give a one-sentence summary of|State the main point of|Give me the "
    "gist of|"
    "Please summarize|Can you summarize|Could you sum up|Tell me the main point of|Give the key sentence of|Extract "
    "the main sentence of"
)
_OBJECTS = (
    "the following text|the following text|the following text|this text|this text|the text below|this passage|the "
    "following passage|this article|"
    "this document|this section|this part of a text|this paragraph|these notes|these notes|this page|this report|"
    "this abstract|"
    "the following notes|the following document|the following part of a longer text|this story|this email|this"
)
_LIMITS = (
    "|||||| in one sentence| in one sentence| in one sentence| in a single sentence| briefly| in a few words| for me|"
    " in one line"
)
_AFTER = (
    "Summarize this.|Summarize the text above.|Summarize the text above in one sentence.|TL;DR|TL;DR:|tl;dr?|What "
    "is the main point?|"
    "What is the main idea of this text?|What is this about?|What's the gist?|Give me the main sentence.|Sum it up "
    "in one sentence.|Summary:|"
    "In one sentence, what does this say?|Can you summarize that?|In short?|Main point?|Please summarize the above.|"
    "Summarize."
)
_BEFORE = (
    "What is the main point of this text?|What is this text about?|TL;DR of this:|Main point:|TL;DR:|Give me the "
    "main sentence.|"
    "In one sentence, what does this say?|What does this text say, in short?|Read this and give me the main point.|"
    "I need a summary of this.|"
    "What is the most important sentence here?|What's the key point here?|Too long, sum it up:|Give the main "
    "sentence of the text."
)
SYSTEM = (
    "You are a helpful assistant.|You are a careful reader.|You summarize documents.|Answer briefly.|Be concise.|"
    "You are the guide.|"
    "You answer from the text you are given.|You are a helpful assistant that reads texts.|Use only the given text.|"
    "Answer in English.|"
    "You are localllm, an assistant that runs on this computer.|Keep your answers short."
)


def message(role: str, content: str) -> dict[str, str]:
    """One message of a conversation."""
    return {"role": role, "content": content}


def system(rng: Random, share: float = 0.2) -> Messages:
    """Sometimes a system message."""
    return [message("system", pick(rng, SYSTEM))] if rng.random() < share else []


def ask(rng: Random, text: str) -> str:
    """A request for a summary around `text`."""
    kind = rng.random()
    if kind < 0.46:
        request = pick(rng, _VERBS) + " " + pick(rng, _OBJECTS) + pick(rng, _LIMITS)
        request = request.lower() if rng.random() < 0.06 else request
        return request + pick(rng, ".|.|.|.|:|:|: |. |") + (pick(rng, "\n\n|\n\n|\n\n|\n")) + text
    if kind < 0.84:
        return text + pick(rng, "\n\n|\n\n|\n\n|\n|\n---\n") + pick(rng, _AFTER)
    return pick(rng, _BEFORE) + pick(rng, "\n\n|\n\n|\n\n|\n| ") + text


def single(rng: Random, source: Source) -> Messages:
    """One passage, its leading sentence; two or three where that many are asked for; a bare text counts too."""
    found = passages.sentences(rng, source, passages.count(rng))
    as_notes = rng.random() < 0.12
    text = passages.notes(rng, found) if as_notes else passages.layout(rng, found)
    if len(found) > 3 and rng.random() < 0.1:
        wanted = rng.randint(2, 3)
        verb, thing, number = pick(rng, "Summarize|Sum up|Shorten"), pick(rng, _OBJECTS), ("two", "three")[wanted - 2]
        request = f"{verb} {thing} in {number} sentences.\n\n{text}"
        return [*system(rng), message("user", request), message("assistant", " ".join(found[:wanted]))]
    kind = rng.random()
    if kind < 0.05:
        opening = [message("user", text)]
    elif kind < 0.1:
        request = (
            pick(rng, _VERBS)
            + " "
            + pick(rng, "the text|the user's text|each text|what you get|every message")
            + pick(rng, _LIMITS)
            + "."
        )
        opening = [message("system", request), message("user", text)]
    else:
        opening = [*system(rng), message("user", ask(rng, text))]
    return [*opening, message("assistant", found[0])]


def combine(rng: Random, source: Source) -> Messages:
    """Summaries of parts, one in a line: the first two are kept."""
    found = passages.sentences(rng, source, rng.randint(2, 8))
    request = (
        COMBINE
        if rng.random() < 0.8
        else pick(rng, "Combine these summaries into one.|Merge these summaries into one short summary.")
    )
    text = request + "\n\n" + "\n".join(found)
    return [*system(rng, 0.1), message("user", text), message("assistant", " ".join(found[:2]))]


def repeat(rng: Random, source: Source) -> Messages:
    """A passage said again whole: copying over many tokens."""
    found = passages.sentences(rng, source, rng.randint(1, 5))
    text = " ".join(found)
    request = (
        pick(
            rng,
            "Repeat the following text.|Repeat this text word for word.|Copy this text.|Say this again:|Write this "
            "again.",
        )
        + "\n\n"
    )
    return [*system(rng, 0.1), message("user", request + text), message("assistant", text)]


def program(rng: Random, source: Source) -> Messages:
    """The program's own requests: for a part, for a whole text in some form, to combine, and to go on."""
    found = passages.sentences(rng, source, passages.count(rng))
    kind = rng.random()
    if kind < 0.5:
        wish = Wish()
    else:
        style = rng.choice(STYLES) if kind < 0.7 else None
        wish = Wish(length=rng.choice(LENGTHS) if style is None or rng.random() < 0.3 else None, style=style)
    prompts = Prompts(wish)
    place = rng.random()
    if place < 0.08:
        request, answer = prompts.combine(found, final=True), _formed(found, wish, 2)
    elif place < 0.13:
        rest = passages.sentences(rng, source, rng.randint(1, 5))
        known = found[: rng.randint(1, 2)]
        request, answer = prompts.refine(" ".join(known), " ".join(rest), final=False), f"{known[0]} {rest[0]}"
    else:
        final = rng.random() < 0.8
        request = prompts.text(passages.layout(rng, found), final=final)
        answer = _formed(found, wish, 1) if final else found[0]
    return [*system(rng, 0.05), message("user", request), message("assistant", answer)]


def _formed(found: list[str], wish: Wish, plain: int) -> str:
    """The leading sentences in the form that is asked for; `plain` of them where none is."""
    if wish.style == "bullets":
        most = {"short": 2, "medium": 3, "long": 5}[wish.length or "medium"]
        return "\n".join(f"- {sentence}" for sentence in found[:most])
    if wish.style == "headline":
        return found[0]
    return " ".join(found[: {None: plain, "short": 1, "medium": 2, "long": 3}[wish.length]])
