"""Tokens on a terminal: what is learned in green, what is only read in grey, neighbours in two shades of each.

Where there are no colours, what is learned stands in ⟦brackets⟧.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localllm.tasks.data_rows import Piece, ShownRow

_LEARNED = ("\x1b[32m", "\x1b[92m")
_READ = ("\x1b[90m", "\x1b[37m")
_CONTROL = "\x1b[4m"
_OFF = "\x1b[0m"


@dataclass(frozen=True)
class TokenView:
    """Draws rows for one output."""

    colour: bool

    @classmethod
    def for_terminal(cls) -> TokenView:
        """Colours on a terminal that wants them."""
        return cls(sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def row(self, row: ShownRow) -> str:
        """A heading and the tokens, as lines that end with a blank one."""
        head = f"line {row.line} ({row.format}): {len(row.pieces)} tokens, {row.learned} learned"
        return f"{head}\n{self._coloured(row) if self.colour else self._bracketed(row)}\n"

    def _coloured(self, row: ShownRow) -> str:
        drawn = []
        for i, piece in enumerate(row.pieces):
            style = (_LEARNED if piece.learned else _READ)[i % 2] + _CONTROL * piece.control
            # a style that spans a line end is lost in pagers
            drawn.append("\n".join(f"{style}{part}{_OFF}" if part else "" for part in _shown(piece).split("\n")))
        return "".join(drawn)

    def _bracketed(self, row: ShownRow) -> str:
        drawn = []
        for learned, pieces in groupby(row.pieces, key=lambda piece: piece.learned):
            text = "".join(map(_shown, pieces))
            drawn.append(f"⟦{text}⟧" if learned else text)
        return "".join(drawn)


def _shown(piece: Piece) -> str:
    """A token's text, made safe; a line end is shown before it takes effect."""
    from localllm.sanitize import sanitize

    return sanitize(piece.text).replace("\n", "↵\n")
