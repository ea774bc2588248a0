"""How quick the conversations of years are: python scripts/bench_chats.py [--chats N] [--messages N] [--json]

Fills a store in a temporary folder, then measures, in this process and with a warm disk: opening it and reading the
list, searching all text, opening a conversation of 2,000 messages. The slowest run counts. Exits 1 over a limit.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from localllm.store.chats.search import search
from localllm.store.chats.store import ChatStore

LIMITS_MS = {"open and list": 1500, "search, common word": 200, "search, rare word": 200, "search, two letters": 200,
             "search, nothing found": 200, "open 2,000 messages": 500}  # fmt: skip
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]


def fill(store: ChatStore, chats: int, messages: int, seed: int = 1) -> int:
    """Random words, common and rare; the id of the conversation with 2,000 messages."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(20000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    long = 2000
    sizes = [long] + [(messages - long) // (chats - 1)] * (chats - 1)
    for start in range(0, chats, 200):
        with store.database.change() as connection:
            for number in range(start, min(chats, start + 200)):
                chat = connection.execute(
                    "INSERT INTO chat (uid, title, created, updated) VALUES (?, ?, ?, ?) RETURNING id",
                    (f"c{number}", f"Conversation {number}", number, number),
                ).fetchone()[0]
                parent = None
                for turn in range(sizes[number]):
                    text = " ".join(draw.choices(vocabulary, weights, k=draw.randint(5, 60)))
                    parent = connection.execute(
                        "INSERT INTO turn (uid, chat, parent, role, content, created) VALUES (?, ?, ?, ?, ?, ?) "
                        "RETURNING id",
                        (f"t{number}.{turn}", chat, parent, ("user", "assistant")[turn % 2], text, turn),
                    ).fetchone()[0]
                connection.execute("UPDATE chat SET leaf = ? WHERE id = ?", (parent, chat))
    return 1


def slowest(work: Callable[[], object], runs: int = 5) -> float:
    """Milliseconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return max(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chats", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one object, times in milliseconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.sqlite3"
        store = ChatStore(path)
        long = fill(store, arguments.chats, arguments.messages)
        size = path.stat().st_size
        report = {
            "open and list": slowest(lambda: ChatStore(path).chats()),
            "search, common word": slowest(lambda: search(store.database, "kan")),
            "search, rare word": slowest(lambda: search(store.database, "bazuvisdo")),
            "search, two letters": slowest(lambda: search(store.database, "zu")),
            "search, nothing found": slowest(lambda: search(store.database, "qq")),
            "open 2,000 messages": slowest(lambda: store.turns.branch(long)),
        }
        assert len(store.turns.branch(long)) == min(2000, arguments.messages)
    if arguments.json:
        print(json.dumps({"bytes": size, **report}))
    else:
        print(f"{arguments.chats} conversations, {arguments.messages} messages, {size / 1e6:.0f} MB")
        for name, value in report.items():
            print(f"{name:24}{value:8.1f} ms   (limit {LIMITS_MS[name]})")
    return int(any(value > LIMITS_MS[name] for name, value in report.items()))


if __name__ == "__main__":
    sys.exit(main())
