"""Conversations as files: everything as JSON, or one of them as Markdown, out and in again."""

from __future__ import annotations

import json
from pathlib import Path

from localllm.errors import DataError, StorageError
from localllm.paths import Home
from localllm.store.chats.exchange import Imported, export, import_all, to_markdown
from localllm.store.chats.store import ChatStore
from localllm.store.files import write_atomically


def open_store(home: Home) -> ChatStore:
    """The conversations of this home: those deleted long ago are removed, and replies of a crash are marked as cut.

    Raises StorageError.
    """
    store = ChatStore(home.chats)
    store.turns.mend()
    if store.deleted():
        store.purge()
    return store


def export_text(store: ChatStore, chat: int | None, *, markdown: bool = False) -> str:
    """One conversation, or with None all of them; Markdown holds the branch that is shown, JSON the whole tree."""
    if markdown:
        if chat is None:
            raise DataError("Markdown holds one conversation.", "Name one, or export to a .json file.")
        return to_markdown(store.chat(chat), store.turns.branch(chat))
    return json.dumps(export(store, None if chat is None else [chat]), ensure_ascii=False, indent=1) + "\n"


def export_file(store: ChatStore, chat: int | None, path: Path) -> Path:
    """Write `export_text` there, as Markdown where the name ends in .md. Raises StorageError and DataError."""
    target = path.expanduser()
    if target.is_dir():
        raise StorageError(f"{target} is a folder.", "Give the name of a file.")
    text = export_text(store, chat, markdown=target.suffix.lower() in (".md", ".markdown"))
    write_atomically(target, text.encode("utf-8", "replace"))
    return target


def import_file(store: ChatStore, path: Path) -> Imported:
    """Add what `export_file` wrote as JSON. Raises DataError; then nothing is added."""
    try:
        value = json.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}).", "Check the path.", path=path) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error}).", "`localllm chats export` makes such a file.", path=path) from error
    return import_all(store, value)
