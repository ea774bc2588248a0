"""The tables, as steps that each bring a file from one version to the next. `PRAGMA user_version` counts them.

A step that has been released is never changed; a new one is appended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from localllm.errors import StorageError

FIRST = """
CREATE TABLE chat (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    updated REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    deleted REAL,
    leaf INTEGER REFERENCES turn (id) ON DELETE SET NULL,
    settings TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX chat_order ON chat (pinned DESC, updated DESC) WHERE deleted IS NULL;
CREATE TABLE turn (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    chat INTEGER NOT NULL REFERENCES chat (id) ON DELETE CASCADE,
    parent INTEGER REFERENCES turn (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'complete',
    author TEXT NOT NULL DEFAULT '',
    stats TEXT NOT NULL DEFAULT '{}',
    writer INTEGER,
    touched REAL
);
CREATE INDEX turn_of_chat ON turn (chat, parent);
CREATE INDEX turn_of_parent ON turn (parent);
CREATE INDEX turn_being_written ON turn (state) WHERE state = 'writing';
-- Trigrams find parts of words, and text in scripts that put no spaces between them.
CREATE VIRTUAL TABLE turn_text USING fts5 (content, content = 'turn', content_rowid = 'id', tokenize = 'trigram');
-- A reply is indexed once it is finished: its text changes every second until then.
CREATE TRIGGER turn_added AFTER INSERT ON turn WHEN new.state <> 'writing' BEGIN
    INSERT INTO turn_text (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER turn_removed AFTER DELETE ON turn WHEN old.state <> 'writing' BEGIN
    INSERT INTO turn_text (turn_text, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER turn_unwritten AFTER UPDATE OF content, state ON turn WHEN old.state <> 'writing' BEGIN
    INSERT INTO turn_text (turn_text, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER turn_written AFTER UPDATE OF content, state ON turn WHEN new.state <> 'writing' BEGIN
    INSERT INTO turn_text (rowid, content) VALUES (new.id, new.content);
END;
CREATE TABLE prompt (name TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
SOURCE = """
ALTER TABLE turn ADD COLUMN source TEXT NOT NULL DEFAULT '';
"""
MIGRATIONS: tuple[str, ...] = (FIRST, SOURCE)


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring a file up to date, every step whole or not at all. Raises StorageError for one of a later version."""
    if _version(connection) == len(steps):
        return
    for _ in range(len(steps) + 1):
        # Another window may be doing the same: what is left is found out under the lock.
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection)
            if version > len(steps):
                raise StorageError(
                    f"The conversations were saved by a later version of localllm (format {version}).",
                    "Use that version, or another LOCALLLM_HOME.",
                )
            if version == len(steps):
                connection.execute("COMMIT")
                return
            for statement in _statements(steps[version]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """One by one: `executescript` would end the transaction."""
    statements, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    return statements
