"""Conversations: their list, names, pins and settings, and deleting them so that it can be undone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localllm.errors import StorageError
from localllm.store.chats.database import Database
from localllm.store.chats.records import ChatRecord, ChatSettings
from localllm.store.chats.turns import Turns

KEPT_SECONDS = 30 * 86400.0
"""How long a deleted conversation can be brought back."""
COLUMNS = "chat.id, chat.uid, chat.title, chat.created, chat.updated, chat.pinned, chat.leaf, chat.settings"


class ChatStore:
    """The conversations of one home, or with `path` None of this process only. Safe from any thread."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the file. Raises StorageError."""
        self.database = Database(path)
        self.turns = Turns(self.database, clock)
        self._clock = clock

    @property
    def saved(self) -> bool:
        """Whether anything outlasts the process."""
        return self.database.path is not None

    def close(self) -> None:
        self.database.close()

    # Conversations

    def chats(self, limit: int = 200) -> list[ChatRecord]:
        """The pinned ones, then the others, each from the latest on."""
        rows = self.database.rows(
            f"SELECT {COLUMNS} FROM chat WHERE deleted IS NULL ORDER BY pinned DESC, updated DESC, id DESC LIMIT ?",
            (limit,),
        )
        return [record(row) for row in rows]

    def count(self) -> int:
        return int(self.database.rows("SELECT count(*) FROM chat WHERE deleted IS NULL")[0][0])

    def chat(self, chat: int) -> ChatRecord:
        """Raises StorageError where there is none, or it was deleted."""
        rows = self.database.rows(f"SELECT {COLUMNS} FROM chat WHERE id = ? AND deleted IS NULL", (chat,))
        if not rows:
            raise StorageError("This conversation is no longer there.", "It was deleted, perhaps in another window.")
        return record(rows[0])

    def create(self, settings: ChatSettings | None = None, title: str = "") -> ChatRecord:
        """A new, empty conversation."""
        now = self._clock()
        with self.database.change() as connection:
            row = connection.execute(
                "INSERT INTO chat (uid, title, created, updated, settings) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (new_uid(), title, now, now, (settings or ChatSettings()).to_json()),
            ).fetchone()
        return self.chat(row[0])

    def rename(self, chat: int, title: str) -> None:
        """An empty title goes back to the beginning of the first message."""
        self._set(chat, "title", title.strip() or self.turns.opening(chat))

    def pin(self, chat: int, pinned: bool) -> None:
        self._set(chat, "pinned", int(pinned))

    def set_settings(self, chat: int, settings: ChatSettings) -> None:
        self._set(chat, "settings", settings.to_json())

    def delete(self, chat: int) -> None:
        """Out of the list; `restore` brings it back for KEPT_SECONDS."""
        self._set(chat, "deleted", self._clock())

    def restore(self, chat: int) -> None:
        self._set(chat, "deleted", None)

    def deleted(self) -> list[ChatRecord]:
        """What can be brought back, the latest first."""
        rows = self.database.rows(f"SELECT {COLUMNS} FROM chat WHERE deleted IS NOT NULL ORDER BY deleted DESC")
        return [record(row) for row in rows]

    def purge(self, kept_seconds: float = KEPT_SECONDS) -> int:
        """Remove for good what was deleted longer ago than that; how many they were."""
        with self.database.change() as connection:
            return connection.execute(
                "DELETE FROM chat WHERE deleted IS NOT NULL AND deleted <= ?", (self._clock() - kept_seconds,)
            ).rowcount

    def _set(self, chat: int, column: str, value: Any) -> None:
        with self.database.change() as connection:
            connection.execute(f"UPDATE chat SET {column} = ? WHERE id = ?", (value, chat))

    # Small things that belong to the person

    def prompts(self) -> dict[str, str]:
        """The library of system prompts, by name."""
        return dict(self.database.rows("SELECT name, text FROM prompt ORDER BY name"))

    def save_prompt(self, name: str, text: str) -> None:
        """Keep a system prompt under a name; an empty text removes it."""
        with self.database.change() as connection:
            if text.strip():
                connection.execute("INSERT OR REPLACE INTO prompt VALUES (?, ?)", (name, text))
            else:
                connection.execute("DELETE FROM prompt WHERE name = ?", (name,))

    def fact(self, name: str) -> str:
        """Something remembered under a name; empty when it is not."""
        rows = self.database.rows("SELECT value FROM fact WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    def remember(self, name: str, value: str) -> None:
        with self.database.change() as connection:
            connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))


def record(row: tuple[Any, ...]) -> ChatRecord:
    """From a row of COLUMNS."""
    number, uid, title, created, updated, pinned, leaf, settings = row
    return ChatRecord(number, uid, title, created, updated, bool(pinned), leaf, ChatSettings.from_json(settings))


def new_uid() -> str:
    return secrets.token_hex(8)
