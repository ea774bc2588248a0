"""What the scheduler needs of native code: a context of several sequences ("slots"), each a run of held tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Group = tuple[tuple[Any, float], ...]
"""Adapters and their scales. Only requests of one group can be decoded together."""
Status = Literal["done", "aborted", "full", "failed"]


@dataclass(frozen=True)
class Part:
    """Tokens that follow those which a slot holds."""

    slot: int
    start: int
    """Position of the first token, which is the number of tokens held."""
    tokens: Sequence[int]
    rows: int
    """Of how many of the last tokens the logits are wanted."""


class Backend(Protocol):
    """Native calls of one context. None of them decides anything."""

    can_trim: bool
    """Whether a part of what a slot holds can be forgotten, or copied; recurrent models have only their last state."""

    def decode(self, parts: Sequence[Part]) -> Status:
        """Compute all parts in one batch, in order of their slots. Unless "done", nothing can be chosen from it."""
        ...

    def choose(self, sampler: Any, row: int) -> int:
        """The next token, by the sampler of a request, from the logits of the batch's token with that index."""
        ...

    def length(self, slot: int) -> int:
        """How many tokens the slot really holds."""
        ...

    def trim(self, slot: int, keep: int) -> bool:
        """Hold only the first `keep` tokens; where that is not possible, hold none and return False."""
        ...

    def copy(self, source: int, target: int, keep: int) -> None:
        """Let `target` hold the first `keep` tokens of `source`, and nothing else."""
        ...

    def attach(self, group: Group) -> None:
        """Use exactly these adapters from the next batch on. Raises AdapterError."""
        ...

    def interrupt(self, on: bool) -> None:
        """Whether a running `decode` is to give up as soon as it can; safe from any thread."""
        ...


class Chooser(Protocol):
    """The sampler of one request, as far as the scheduler knows it."""

    def close(self) -> None: ...


class Vocabulary(Protocol):
    """What a token means for the text of an answer."""

    def piece(self, token: int) -> bytes: ...

    def is_end(self, token: int) -> bool: ...
