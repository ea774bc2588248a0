"""The word that somebody meant: the nearest known one, if it is near enough."""

from __future__ import annotations

from collections.abc import Mapping

_SOUNDS = (("ph", "f"), ("ck", "k"), ("c", "k"), ("z", "s"), ("y", "i"), ("v", "w"))


def nearest(word: str, known: Mapping[str, int]) -> str | None:
    """The known word with the fewest mistakes to `word`; among equals one with its first letter, then the commonest.

    A mistake is a letter too many, missing or wrong, or two that changed places. One is forgiven from 4 letters on, two
    from 9; a letter may be wrong from 6 on, since short words with one letter changed are mostly other words. A word
    that sounds alike is near at any length. Words with digits are taken as they are.
    """
    if not word.isalpha() or len(word) < 3:
        return None
    if alike := [other for other in known if abs(len(other) - len(word)) < 3 and sound(other) == sound(word)]:
        return max(alike, key=lambda other: known[other])
    most = 0 if len(word) < 4 else 1 if len(word) < 9 else 2
    best: tuple[int, bool, int] | None = None
    found = None
    letters = set(word)
    for other, count in known.items():
        if abs(len(other) - len(word)) > most or len(other) < 4 or len(letters.symmetric_difference(other)) > 2 * most:
            continue
        mistakes = distance(word, other, most)
        if mistakes > most or (other[0] != word[0] and (mistakes > 1 or len(word) < 6)):
            continue
        if len(word) < 6 and len(word) == len(other) and letters != set(other):
            continue
        rank = (mistakes, other[0] != word[0], -count)
        if best is None or rank < best:
            best, found = rank, other
    return found


def distance(a: str, b: str, most: int) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that make b of a; more than `most` is `most` + 1."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def sound(word: str) -> str:
    """What is left of a word when letters that sound alike are written alike: "alfa" and "alpha" are the same."""
    for letters, like in _SOUNDS:
        word = word.replace(letters, like)
    return "".join(x for x, before in zip(word, " " + word, strict=False) if x != before)
