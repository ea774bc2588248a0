"""Everything out and in again as JSON, and one conversation as Markdown.

Conversations and turns carry names that are the same on every machine, so that importing twice adds nothing, and
importing a later export adds only what is new: to a conversation that is here too, the turns it lacks.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from localllm.errors import DataError
from localllm.store.chats.records import ChatRecord, ChatSettings, ReplyStats, Turn
from localllm.store.chats.store import COLUMNS, ChatStore, record

FORMAT = "localllm chats 1"
_ROLES = ("system", "user", "assistant", "tool")
_ALL = 1 << 60


@dataclass(frozen=True)
class Imported:
    """What an import added."""

    chats: int
    turns: int
    prompts: int


def export(store: ChatStore, chats: Sequence[int] | None = None) -> dict[str, Any]:
    """These conversations, or all and the library of system prompts, as a value for JSON."""
    records = store.chats(_ALL) if chats is None else [store.chat(chat) for chat in chats]
    exported: dict[str, Any] = {"format": FORMAT, "chats": [_chat(store, chat) for chat in records]}
    if chats is None:
        exported["prompts"] = store.prompts()
    return exported


def _chat(store: ChatStore, chat: ChatRecord) -> dict[str, Any]:
    turns = store.turns.tree(chat.id)
    names = {turn.id: turn.uid for turn in turns}
    return {
        "uid": chat.uid, "title": chat.title, "created": chat.created, "updated": chat.updated, "pinned": chat.pinned,
        "leaf": names.get(chat.leaf or 0), "settings": json.loads(chat.settings.to_json()),
        "turns": [
            {
                "uid": turn.uid, "parent": names.get(turn.parent or 0), "role": turn.role, "content": turn.content,
                "created": turn.created, "state": "cut" if turn.state == "writing" else turn.state,
                "author": turn.author, "stats": asdict(turn.stats), "source": turn.source,
            }
            for turn in turns
        ],
    }  # fmt: skip


def import_all(store: ChatStore, value: Any) -> Imported:
    """Add what `export` gave. Raises DataError for anything else; then nothing is added."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError("This is no export of localllm's conversations.", "`localllm chats export` makes one.")
    chats = turns = 0
    prompts = value.get("prompts") or {}
    try:
        with store.database.change() as connection:
            for chat in value["chats"]:
                added = _checked(connection, chat)
                chats += added[0]
                turns += added[1]
            for name, text in prompts.items():
                connection.execute("INSERT OR IGNORE INTO prompt VALUES (?, ?)", (str(name), str(text)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"The export is malformed ({error!r}); nothing was added.", "Export it again.") from error
    return Imported(chats, turns, len(prompts))


def _checked(connection: sqlite3.Connection, chat: dict[str, Any]) -> tuple[int, int]:
    try:
        return _import_chat(connection, chat)
    except sqlite3.IntegrityError as error:
        raise ValueError(f"a name that stands for something else here: {error}") from error


def _import_chat(connection: sqlite3.Connection, chat: dict[str, Any]) -> tuple[int, int]:
    """Conversations and turns added."""
    found = connection.execute("SELECT id, leaf FROM chat WHERE uid = ?", (str(chat["uid"]),)).fetchone()
    if found is None:
        settings = ChatSettings.from_json(json.dumps(chat["settings"])).to_json()
        found = connection.execute(
            "INSERT INTO chat (uid, title, created, updated, pinned, settings) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING id, leaf",
            (str(chat["uid"]), str(chat["title"]), float(chat["created"]), float(chat["updated"]),
             int(bool(chat["pinned"])), settings),
        ).fetchone()  # fmt: skip
        added = 1
    else:
        connection.execute("UPDATE chat SET deleted = NULL WHERE id = ?", (found[0],))
        added = 0
    known = dict(connection.execute("SELECT uid, id FROM turn WHERE chat = ?", (found[0],)).fetchall())
    before = len(known)
    for turn in chat["turns"]:
        if turn["uid"] not in known:
            known[turn["uid"]] = _import_turn(connection, found[0], turn, known)
    if found[1] is None and chat["leaf"] is not None:
        connection.execute("UPDATE chat SET leaf = ? WHERE id = ?", (known[chat["leaf"]], found[0]))
    return added, len(known) - before


def _import_turn(connection: sqlite3.Connection, chat: int, turn: dict[str, Any], known: dict[str, int]) -> int:
    if turn["role"] not in _ROLES:
        raise ValueError(f"the role {turn['role']!r}")
    parent = None if turn["parent"] is None else known[turn["parent"]]
    state = turn["state"] if turn["state"] in ("complete", "stopped", "cut") else "cut"
    (number,) = connection.execute(
        "INSERT INTO turn (uid, chat, parent, role, content, created, state, author, stats, source) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (str(turn["uid"]), chat, parent, turn["role"], str(turn["content"]), float(turn["created"]), state,
         str(turn["author"]), ReplyStats.from_json(json.dumps(turn["stats"])).to_json(), str(turn.get("source", ""))),
    ).fetchone()  # fmt: skip
    return int(number)


def find(store: ChatStore, name: str) -> ChatRecord:
    """The conversation of that number, uid or title. Raises DataError."""
    rows = store.database.rows(
        f"SELECT {COLUMNS} FROM chat WHERE deleted IS NULL AND (uid = ? OR title = ? OR id = ?) ORDER BY updated DESC",
        (name, name, int(name) if name.isdecimal() and len(name) < 18 else -1),
    )
    if not rows:
        raise DataError(f"There is no conversation {name!r}.", "`localllm chats list` shows those there are.")
    return record(rows[0])


def to_markdown(chat: ChatRecord, branch: Sequence[Turn]) -> str:
    """The branch that is shown, for people to read."""
    parts = [f"# {chat.title or 'Conversation'}\n"]
    if chat.settings.system:
        parts.append(f"> System: {chat.settings.system}\n".replace("\n", "\n> ").removesuffix("> "))
    for turn in branch:
        author = "You" if turn.role == "user" else turn.author or turn.role.capitalize()
        ending = "" if turn.state == "complete" else f" ({turn.state})"
        source = f"\n({turn.source})\n" if turn.source else ""
        parts.append(f"## {author}{ending}\n\n{turn.content.rstrip()}\n{source}")
    return "\n".join(parts)
