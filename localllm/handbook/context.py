"""What a model is given to read before it answers: the entries that were found, and the question after them."""

from __future__ import annotations

from collections.abc import Sequence

from localllm.handbook.entries import Entry


def passage(found: Sequence[Entry]) -> str:
    """The texts of entries as plain prose, one paragraph each."""
    return "\n\n".join(entry.plain for entry in found)


def prompt(question: str, found: Sequence[Entry]) -> str:
    """The message in which a question goes to a model that reads: as when a text is piped into `localllm ask`."""
    return f"{passage(found)}\n\n{question}"
