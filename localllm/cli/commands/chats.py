"""`localllm chats`: the conversations of the terminal app, without opening it."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import print_json, say

if TYPE_CHECKING:
    from localllm.store.chats.records import ChatRecord
    from localllm.store.chats.store import ChatStore


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="SUBCOMMAND", title="subcommands", required=True)
    listing = _subcommand(what, "list", "the latest conversations, pinned ones first")
    listing.add_argument("-n", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    options.add_json(listing, "print one JSON object for each")
    search = _subcommand(what, "search", "conversations and messages that hold all these words, or parts of words")
    search.add_argument("words", nargs="+", metavar="WORD")
    options.add_json(search, "print one JSON object for each")
    export = _subcommand(what, "export", "all conversations as JSON; or one, as JSON or Markdown")
    export.add_argument("file", type=Path, metavar="FILE", help="what to write; - for standard output")
    export.add_argument("--chat", metavar="ID", help="only the one of that number or title; to FILE.md as Markdown")
    take = _subcommand(what, "import", "add conversations from an export; what is here already stays as it is")
    take.add_argument("file", type=Path, metavar="FILE")


def _subcommand(
    what: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str
) -> argparse.ArgumentParser:
    parser = what.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int:
    from localllm.paths import Home
    from localllm.tasks.conversations import open_store

    store = open_store(Home.locate())
    try:
        {"list": _list, "search": _search, "export": _export, "import": _import}[args.what](store, args)
    finally:
        store.close()
    return 0


def _list(store: ChatStore, args: argparse.Namespace) -> None:
    from localllm.sanitize import sanitize_line

    for chat in store.chats(max(0, args.n)):
        if args.json:
            print_json(_facts(chat))
        else:
            when = datetime.fromtimestamp(chat.updated).strftime("%Y-%m-%d %H:%M")
            print(f"{chat.id:>6}  {when}  {'pinned  ' if chat.pinned else ''}{sanitize_line(chat.title) or '(empty)'}")


def _search(store: ChatStore, args: argparse.Namespace) -> None:
    from localllm.sanitize import sanitize_line
    from localllm.store.chats.search import search

    for found in search(store.database, " ".join(args.words)):
        if args.json:
            print_json({**_facts(found.chat), "turn": found.turn, "excerpt": found.excerpt})
        else:
            where = "title" if found.turn is None else sanitize_line(found.chat.title)
            print(f"{found.chat.id:>6}  {where}: {sanitize_line(found.excerpt)}")


def _export(store: ChatStore, args: argparse.Namespace) -> None:
    from localllm.store.chats.exchange import find
    from localllm.tasks.conversations import export_file, export_text

    chat = find(store, args.chat).id if args.chat else None
    if str(args.file) == "-":
        print(export_text(store, chat), end="")
    else:
        say(
            f"{export_file(store, chat, args.file)}: {'one conversation' if chat else f'{store.count()} conversations'}"
        )


def _import(store: ChatStore, args: argparse.Namespace) -> None:
    from localllm.tasks.conversations import import_file

    added = import_file(store, args.file)
    say(f"{added.chats} conversations and {added.turns} messages added.")


def _facts(chat: ChatRecord) -> dict[str, object]:
    return {"id": chat.id, "uid": chat.uid, "title": chat.title, "updated": chat.updated, "pinned": chat.pinned}
