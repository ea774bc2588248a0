"""Speculation without a second model: what followed the last few tokens earlier in the text may follow them again.

A draft is decoded in one batch with the token before it; as many of its tokens as the sampler would have chosen itself
are kept, so that a greedy answer has the same tokens up to the order of floating-point sums, which a batch changes. How
much is drafted depends on the tokens so far and on nothing else: the same request drafts the same every time.
"""

from __future__ import annotations

LONGEST, SHORTEST = 3, 2
"""Tokens that must have occurred before, in this order."""
MOST_ACTIVE = 2
"""Answers on their way with which drafting still pays: more of them fill a batch better than drafts do."""
MOST_DRAFTED = 8
ROW_COST = 0.5
"""Of one more token in a batch, in steps of a single one: measured with 135 million weights on two cores."""
_EXPECTED = 0.7
"""Share of drafted tokens that is taken to be right before any was checked."""
_DECAY, _DRIFT = 0.8, 0.02


class Lookup:
    """Drafts for one request."""

    def __init__(self, tokens: list[int]) -> None:
        """`tokens`: prompt and answer, which the owner goes on appending to."""
        self._tokens = tokens
        self._seen: dict[tuple[int, ...], int] = {}  # where the token lies that follows, of the last occurrence
        self._indexed = 0
        self._right, self._drafted = 2 * _EXPECTED, 2.0
        self.drafted = self.accepted = 0
        """Totals of the request."""

    @property
    def share(self) -> float:
        """Of drafted tokens that are expected to be right."""
        return self._right / self._drafted

    def draft(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where that is not expected to pay."""
        count = min(most, worthwhile(self.share))
        if count <= 0:
            self._right += _DRIFT * (_EXPECTED * self._drafted - self._right)  # so that it is tried again
            return []
        self._index()
        tokens = self._tokens
        for n in range(LONGEST, SHORTEST - 1, -1):
            at = self._seen.get(tuple(tokens[-n:]))
            if at is not None:
                return tokens[at : at + count]
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """What became of a draft. Tokens after a wrong one say nothing."""
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted
        tried = min(drafted, accepted + 1)
        self._right = _DECAY * self._right + accepted
        self._drafted = _DECAY * self._drafted + tried

    def _index(self) -> None:
        tokens = self._tokens
        for end in range(max(SHORTEST, self._indexed + 1), len(tokens)):
            for n in range(SHORTEST, min(LONGEST, end) + 1):
                self._seen[tuple(tokens[end - n : end])] = end
        self._indexed = len(tokens) - 1


def worthwhile(share: float) -> int:
    """How many tokens to draft when each is right with this probability, as long as the ones before it are."""
    best, best_pace = 0, 1.0
    right = expected = 1.0
    for n in range(1, MOST_DRAFTED + 1):
        right *= share
        expected += right
        pace = expected / (1 + ROW_COST * n)
        if pace > best_pace:
            best, best_pace = n, pace
    return best
