"""Search over all text: titles and turns, in any script, parts of words too."""

from __future__ import annotations

from localllm.store.chats.database import Database
from localllm.store.chats.records import Found
from localllm.store.chats.store import COLUMNS, record

SHORTEST_INDEXED = 3
"""Characters of a word from which on the index of trigrams knows it; shorter ones are looked for in the text itself."""
_BEFORE, _AFTER = 14, 80  # characters of an excerpt around the match, which is to be seen in a narrow list too


def search(database: Database, query: str, limit: int = 100) -> list[Found]:
    """Conversations whose title has all the words, then turns that do, the latest first."""
    words = query.split()[:16]
    if not words:
        return []
    titles = " AND ".join("chat.title LIKE ? ESCAPE '\\'" for _ in words)
    rows = database.rows(
        f"SELECT {COLUMNS} FROM chat WHERE deleted IS NULL AND {titles} ORDER BY updated DESC LIMIT ?",
        (*map(_like, words), limit),
    )
    found = [Found(chat, None, chat.title) for chat in map(record, rows)]
    return [*found, *_turns(database, words, limit)]


def _turns(database: Database, words: list[str], limit: int) -> list[Found]:
    indexed = [word for word in words if len(word) >= SHORTEST_INDEXED]
    scanned = [word for word in words if len(word) < SHORTEST_INDEXED]
    conditions = ["chat.deleted IS NULL", *("turn.content LIKE ? ESCAPE '\\'" for _ in scanned)]
    values: list[str | int] = [*map(_like, scanned)]
    source = "turn"
    if indexed:
        source = "turn_text JOIN turn ON turn.id = turn_text.rowid"
        conditions.append("turn_text MATCH ?")
        values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in indexed))
    order = "turn_text.rowid" if indexed else "turn.id"
    rows = database.rows(
        f"SELECT {COLUMNS}, turn.id, turn.content FROM {source} JOIN chat ON chat.id = turn.chat "
        f"WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?",
        (*values, limit),
    )
    return [Found(record(row[:-2]), row[-2], excerpt(row[-1], words)) for row in rows]


def excerpt(text: str, words: list[str]) -> str:
    """One line around the first place where a word stands."""
    lowered = text.lower()
    at = min((place for word in words if (place := lowered.find(word.lower())) >= 0), default=0)
    start, end = max(0, at - _BEFORE), at + _AFTER
    line = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{line}{'…' if end < len(text) else ''}"


def _like(word: str) -> str:
    for special in ("\\", "%", "_"):
        word = word.replace(special, f"\\{special}")
    return f"%{word}%"
