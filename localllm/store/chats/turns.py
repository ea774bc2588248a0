"""The turns of a conversation: a tree, of which one branch is shown."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

from localllm.errors import StorageError
from localllm.store.chats.database import Database
from localllm.store.chats.records import ReplyStats, Turn, TurnState
from localllm.types import Role

SILENT_SECONDS = 60.0
"""A reply that has not been saved for that long has lost its writer, whatever has its process number now."""
TITLE_CHARACTERS = 60
_FIELDS = ("id", "uid", "parent", "role", "content", "created", "state", "author", "stats", "source")
_COLUMNS = ", ".join(f"turn.{field}" for field in _FIELDS)
_BRANCH = """
WITH RECURSIVE branch (id, depth) AS (
    SELECT leaf, 0 FROM chat WHERE id = ? AND leaf IS NOT NULL
    UNION ALL
    SELECT turn.parent, depth + 1 FROM branch JOIN turn ON turn.id = branch.id WHERE turn.parent IS NOT NULL
)
"""


class Turns:
    """Reads and grows the trees."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    # Reading

    def branch(self, chat: int) -> list[Turn]:
        """The turns that are shown, from the first to the last."""
        rows = self._database.rows(
            f"{_BRANCH} SELECT {_COLUMNS} FROM branch JOIN turn ON turn.id = branch.id ORDER BY depth DESC", (chat,)
        )
        siblings = self._siblings(chat)
        return [_turn(row, siblings.get(row[2], (row[0],))) for row in rows]

    def tree(self, chat: int) -> list[Turn]:
        """Every turn, parents before their children."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM turn WHERE chat = ? ORDER BY id", (chat,))
        return [_turn(row, ()) for row in rows]

    def get(self, turn: int) -> Turn:
        """One turn. Raises StorageError where it is gone."""
        rows = self._database.rows(f"SELECT {_COLUMNS}, chat FROM turn WHERE id = ?", (turn,))
        if not rows:
            raise StorageError("This message is no longer there.", "It was deleted, perhaps in another window.")
        *row, chat = rows[0]
        siblings = self._database.rows("SELECT id FROM turn WHERE chat = ? AND parent IS ? ORDER BY id", (chat, row[2]))
        return _turn(tuple(row), tuple(number for (number,) in siblings))

    def has_replies(self, turn: int) -> bool:
        return bool(self._database.rows("SELECT 1 FROM turn WHERE parent = ? LIMIT 1", (turn,)))

    def _siblings(self, chat: int) -> dict[int | None, tuple[int, ...]]:
        """By parent, where there are several."""
        rows = self._database.rows(
            "SELECT parent, group_concat(id) FROM (SELECT parent, id FROM turn WHERE chat = ? ORDER BY id) "
            "GROUP BY parent HAVING count(*) > 1",
            (chat,),
        )
        return {parent: tuple(sorted(map(int, ids.split(",")))) for parent, ids in rows}

    def opening(self, chat: int) -> str:
        """A title from the beginning of the first message."""
        rows = self._database.rows(
            "SELECT substr(content, 1, 400) FROM turn WHERE chat = ? AND role = 'user' ORDER BY id LIMIT 1", (chat,)
        )
        return title_from(rows[0][0]) if rows else ""

    def sent(self, limit: int = 100) -> list[str]:
        """Messages of the person from all conversations, the latest last."""
        rows = self._database.rows(
            "SELECT content FROM turn WHERE role = 'user' AND length(content) < 2000 ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [row[0] for row in reversed(rows)]

    # Growing

    def add(self, chat: int, parent: int | None, role: Role, content: str, title: str = "") -> int:
        """A new turn below `parent`, which then ends the branch that is shown; its id.

        A conversation without a title takes it from `title`, or else from the content of a person's turn.
        """
        with self._database.change() as connection:
            turn = self._insert(connection, chat, parent, role, content, "complete", "")
            if role == "user":
                connection.execute(
                    "UPDATE chat SET title = ? WHERE id = ? AND title = ''", (title_from(title or content), chat)
                )
        return turn

    def begin(self, chat: int, parent: int, author: str, content: str = "") -> int:
        """A reply on its way; `save` and `end` go on with it."""
        with self._database.change() as connection:
            turn = self._insert(connection, chat, parent, "assistant", content, "writing", author)
            self._touch(connection, turn)
        return turn

    def resume(self, turn: int) -> None:
        """A reply that was cut is on its way again."""
        with self._database.change() as connection:
            connection.execute("UPDATE turn SET state = 'writing' WHERE id = ?", (turn,))
            self._touch(connection, turn)

    def save(self, turn: int, content: str) -> None:
        """The text so far."""
        with self._database.change() as connection:
            connection.execute("UPDATE turn SET content = ?, state = 'writing' WHERE id = ?", (content, turn))
            self._touch(connection, turn)

    def end(self, turn: int, content: str, state: TurnState, stats: ReplyStats, source: str = "") -> None:
        """The whole text, how it ended, and where it is from."""
        with self._database.change() as connection:
            connection.execute(
                "UPDATE turn SET content = ?, state = ?, stats = ?, source = ?, writer = NULL, touched = NULL "
                "WHERE id = ?",
                (content, state, stats.to_json(), source, turn),
            )

    def remove(self, chat: int, turn: int) -> None:
        """Take a turn and all below it out; the branch then ends with its parent."""
        with self._database.change() as connection:
            row = connection.execute("SELECT parent FROM turn WHERE id = ?", (turn,)).fetchone()
            if row is not None:
                connection.execute("UPDATE chat SET leaf = ? WHERE id = ?", (row[0], chat))
                connection.execute("DELETE FROM turn WHERE id = ?", (turn,))
                connection.execute(
                    "UPDATE chat SET title = '' WHERE id = ? AND NOT EXISTS (SELECT 1 FROM turn WHERE chat = chat.id)",
                    (chat,),
                )

    def discard(self, turn: int) -> None:
        """Take out a reply of which nothing came; the branch then ends with the question."""
        rows = self._database.rows("SELECT chat FROM turn WHERE id = ?", (turn,))
        if rows:
            self.remove(rows[0][0], turn)

    def touch(self, turn: int) -> None:
        """Say that the writer of a reply is alive, though there is nothing new of it."""
        with self._database.change() as connection:
            self._touch(connection, turn)

    def show(self, chat: int, turn: int) -> None:
        """Show the branch through this turn: from there down always the latest."""
        with self._database.change() as connection:
            leaf = turn
            while row := connection.execute("SELECT max(id) FROM turn WHERE parent = ?", (leaf,)).fetchone():
                if row[0] is None:
                    break
                leaf = row[0]
            connection.execute("UPDATE chat SET leaf = ? WHERE id = ?", (leaf, chat))

    def end_at(self, chat: int, turn: int | None) -> None:
        """Let the branch that is shown end with this turn: what comes next becomes a sibling of what came after it."""
        with self._database.change() as connection:
            connection.execute("UPDATE chat SET leaf = ? WHERE id = ?", (turn, chat))

    def mend(self) -> int:
        """Mark replies as cut whose writer is gone: killed, or lost with the power. How many they were."""
        rows = self._database.rows("SELECT id, writer, touched FROM turn WHERE state = 'writing'")
        gone = [turn for turn, writer, touched in rows if not self._is_written(writer, touched)]
        if gone:
            with self._database.change() as connection:
                connection.executemany(
                    "UPDATE turn SET state = 'cut', writer = NULL WHERE id = ? AND state = 'writing'",
                    [(turn,) for turn in gone],
                )
        return len(gone)

    def _is_written(self, writer: int | None, touched: float | None) -> bool:
        if writer is None or touched is None or self._clock() - touched > SILENT_SECONDS:
            return False
        try:
            os.kill(writer, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def _insert(
        self,
        connection: sqlite3.Connection,
        chat: int,
        parent: int | None,
        role: Role,
        content: str,
        state: TurnState,
        author: str,
    ) -> int:
        now = self._clock()
        (turn,) = connection.execute(
            "INSERT INTO turn (uid, chat, parent, role, content, created, state, author) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (secrets.token_hex(8), chat, parent, role, content, now, state, author),
        ).fetchone()
        connection.execute("UPDATE chat SET leaf = ?, updated = ? WHERE id = ?", (turn, now, chat))
        return int(turn)

    def _touch(self, connection: sqlite3.Connection, turn: int) -> None:
        connection.execute("UPDATE turn SET writer = ?, touched = ? WHERE id = ?", (os.getpid(), self._clock(), turn))


def title_from(text: str) -> str:
    """One line of at most TITLE_CHARACTERS, cut between words where that is possible."""
    line = " ".join(text.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    head = line[: TITLE_CHARACTERS - 1]
    space = head.rfind(" ")
    return (head[:space] if space > TITLE_CHARACTERS // 2 else head) + "…"


def _turn(row: tuple[Any, ...], siblings: tuple[int, ...]) -> Turn:
    number, uid, parent, role, content, created, state, author, stats, source = row
    return Turn(
        number, uid, parent, role, content, created, state, author, ReplyStats.from_json(stats), siblings, source
    )
