"""Conversations on disk: trees, lists, search, other windows, crashes, older and later files."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localllm.errors import DataError, StorageError
from localllm.store.chats.database import Database
from localllm.store.chats.exchange import export, find, import_all, to_markdown
from localllm.store.chats.records import ChatSettings, ReplyStats
from localllm.store.chats.schema import MIGRATIONS, migrate
from localllm.store.chats.search import search
from localllm.store.chats.store import ChatStore
from localllm.store.chats.turns import title_from
from localllm.types import Sampling


class Clock:
    """Seconds that go on by one each time they are asked for."""

    now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> ChatStore:
    return ChatStore(tmp_path / "chats.sqlite3", clock=Clock())


def talk(store: ChatStore, *texts: str, chat: int | None = None) -> int:
    """Alternating turns of the person and the model, below those that are there."""
    chat = chat or store.create().id
    branch = store.turns.branch(chat)
    parent = branch[-1].id if branch else None
    for number, text in enumerate(texts):
        parent = store.turns.add(chat, parent, "assistant" if number % 2 else "user", text)
    return chat


def texts(store: ChatStore, chat: int) -> list[str]:
    return [turn.content for turn in store.turns.branch(chat)]


def test_a_conversation_is_there_after_reopening(tmp_path: Path):
    path = tmp_path / "deep" / "chats.sqlite3"
    first = ChatStore(path)
    settings = ChatSettings("guide", "tickets", "Be brief.", Sampling(temperature=0.3, stop=("END",), max_tokens=9))
    chat = talk(first, "hello", "hi", chat=first.create(settings).id)
    first.close()
    again = ChatStore(path)
    assert texts(again, chat) == ["hello", "hi"]
    assert again.chat(chat).settings == settings
    assert again.chat(chat).title == "hello"
    assert path.stat().st_mode & 0o077 == 0  # nobody else's business


def test_an_edited_turn_begins_a_branch_and_the_old_one_is_reachable(store: ChatStore):
    chat = talk(store, "q1", "a1", "q2", "a2")
    first, _, second, _ = store.turns.branch(chat)
    store.turns.end_at(chat, second.parent)
    edited = store.turns.add(chat, second.parent, "user", "q2 edited")
    store.turns.add(chat, edited, "assistant", "a2 edited")
    branch = store.turns.branch(chat)
    assert [turn.content for turn in branch] == ["q1", "a1", "q2 edited", "a2 edited"]
    assert branch[2].siblings == (second.id, edited)
    assert branch[0].siblings == (first.id,)
    store.turns.show(chat, second.id)
    assert texts(store, chat) == ["q1", "a1", "q2", "a2"]
    store.turns.show(chat, edited)
    assert texts(store, chat)[-1] == "a2 edited"


def test_the_first_turn_can_be_edited_too(store: ChatStore):
    chat = talk(store, "q1", "a1")
    store.turns.end_at(chat, None)
    store.turns.add(chat, None, "user", "another beginning")
    branch = store.turns.branch(chat)
    assert [turn.content for turn in branch] == ["another beginning"]
    assert len(branch[0].siblings) == 2


def test_removing_a_turn_takes_what_is_below_and_ends_the_branch_above(store: ChatStore):
    chat = talk(store, "q1", "a1", "q2", "a2")
    store.turns.remove(chat, store.turns.branch(chat)[2].id)
    assert texts(store, chat) == ["q1", "a1"]
    assert search(store.database, "q2") == []
    store.turns.remove(chat, store.turns.branch(chat)[0].id)
    assert store.chat(chat).title == ""  # the next first message names it


def test_pinned_ones_come_first_and_deleting_can_be_undone(store: ChatStore):
    one, two, three = (talk(store, name) for name in ("one", "two", "three"))
    assert [chat.id for chat in store.chats()] == [three, two, one]
    store.pin(one, True)
    assert [chat.title for chat in store.chats()] == ["one", "three", "two"]
    store.delete(three)
    assert [chat.title for chat in store.chats()] == ["one", "two"]
    assert search(store.database, "three") == []
    assert [chat.id for chat in store.deleted()] == [three]
    with pytest.raises(StorageError):
        store.chat(three)
    store.restore(three)
    assert store.chat(three).title == "three"
    store.rename(three, "  3  ")
    assert store.chat(three).title == "3"
    store.rename(three, "")
    assert store.chat(three).title == "three"


def test_what_was_deleted_long_ago_is_gone_from_the_file(tmp_path: Path):
    store = ChatStore(tmp_path / "c.sqlite3", clock=Clock())
    chat = talk(store, "a secret phrase", "an answer")
    store.delete(chat)
    assert store.purge() == 0
    assert store.purge(0) == 1
    store.close()
    assert b"secret phrase" not in (tmp_path / "c.sqlite3").read_bytes()


@pytest.mark.parametrize(
    "query,expected",
    [
        ("lighthouse", ["The lighthouse of Mora"]),
        ("LIGHT", ["The lighthouse of Mora"]),
        ("mora lighthouse", ["The lighthouse of Mora"]),
        ("mora bridge", []),
        ("灯台", ["岬の灯台は高い"]),
        ("は高い", ["岬の灯台は高い"]),
        ("مرحبا", ["مرحبا بالعالم"]),
        ("🚢", ["a ship 🚢 sails"]),
        ('"quoted" AND (', ['say "quoted" AND ( this']),
        ("100%", ["100% sure"]),
        ("%", ["100% sure"]),
        ("_", ["snake_case"]),
        ("  ", []),
    ],
)
def test_search_finds_words_and_parts_in_any_script(store: ChatStore, query: str, expected: list[str]):
    chat = store.create(title="x").id
    for text in ("The lighthouse of Mora", "岬の灯台は高い", "مرحبا بالعالم", "a ship 🚢 sails",
                 'say "quoted" AND ( this', "100% sure", "snake_case"):  # fmt: skip
        talk(store, text, chat=chat)
    assert [found.excerpt for found in search(store.database, query)] == expected


def test_search_gives_titles_first_and_an_excerpt_of_one_line(store: ChatStore):
    long = talk(store, "x " * 500 + "\nthe needle\n" + "y " * 500)
    named = store.create(title="needles and pins").id
    found = search(store.database, "needle")
    assert [hit.chat.id for hit in found] == [named, long]
    assert found[0].turn is None
    assert "the needle" in found[1].excerpt
    assert "\n" not in found[1].excerpt
    assert len(found[1].excerpt) < 140


def test_a_reply_on_its_way_is_found_once_it_has_ended(store: ChatStore):
    chat = talk(store, "question")
    reply = store.turns.begin(chat, store.turns.branch(chat)[0].id, "guide")
    store.turns.save(reply, "partial words")
    assert search(store.database, "partial") == []
    store.turns.end(reply, "whole words", "complete", ReplyStats(2, 10.0, 0.1))
    assert search(store.database, "partial") == []
    assert [hit.turn for hit in search(store.database, "whole")] == [reply]
    assert store.turns.branch(chat)[-1].stats == ReplyStats(2, 10.0, 0.1)
    store.turns.resume(reply)
    assert search(store.database, "whole") == []


KILLED = """
import sys, time
from pathlib import Path
from localllm.store.chats.store import ChatStore
store = ChatStore(Path(sys.argv[1]))
chat = store.create().id
question = store.turns.add(chat, None, "user", "go on")
reply = store.turns.begin(chat, question, "guide")
for number in range(100000):
    store.turns.save(reply, "word " * number)
    print(number, flush=True)
"""


def test_a_kill_leaves_all_that_was_saved_marked_as_cut(tmp_path: Path):
    path = tmp_path / "chats.sqlite3"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [0]
    try:
        while said[-1] < 20:
            said.append(int(child.stdout.readline()))
        store = ChatStore(path)
        assert store.turns.mend() == 0  # its writer is alive
    finally:
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
    store = ChatStore(path)
    assert store.turns.mend() == 1
    reply = store.turns.branch(1)[-1]
    assert reply.state == "cut"
    assert reply.content.count("word") >= said[-1]
    assert store.database.rows("PRAGMA integrity_check") == [("ok",)]
    assert [hit.turn for hit in search(store.database, "word")] == [reply.id]


def test_a_writer_that_has_been_silent_for_long_has_gone_though_its_number_is_in_use(tmp_path: Path):
    clock = Clock()
    store = ChatStore(tmp_path / "c.sqlite3", clock=clock)
    chat = talk(store, "q")
    reply = store.turns.begin(chat, store.turns.branch(chat)[0].id, "guide")
    assert store.turns.mend() == 0
    clock.now += 61
    assert store.turns.mend() == 1
    store.turns.save(reply, "it was only asleep")  # and takes its reply back
    assert store.turns.branch(chat)[-1].state == "writing"


WRITER = """
import sys
from pathlib import Path
from localllm.store.chats.store import ChatStore
store = ChatStore(Path(sys.argv[1]))
chat = store.create(title=sys.argv[2]).id
parent = None
for number in range(60):
    parent = store.turns.add(chat, parent, "user", f"{sys.argv[2]} {number}")
    store.chats()
"""


def test_windows_that_write_at_once_lose_and_damage_nothing(tmp_path: Path):
    path = tmp_path / "chats.sqlite3"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("left", "right")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    store = ChatStore(path)
    for chat in store.chats():
        assert texts(store, chat.id) == [f"{chat.title} {number}" for number in range(60)]
    assert store.database.rows("PRAGMA integrity_check") == [("ok",)]


def test_threads_of_one_window_share_the_store(store: ChatStore):
    threads = [threading.Thread(target=talk, args=(store, *(f"{n}-{i}" for i in range(20)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(texts(store, chat.id)) for chat in store.chats()) == [20] * 4


@pytest.mark.parametrize("version,mode", [((3, 51, 2), "delete"), ((3, 51, 3), "wal"), ((4, 0, 0), "wal")])
def test_the_write_ahead_log_is_used_only_where_it_is_sound(tmp_path: Path, version: tuple[int, ...], mode: str):
    database = Database(tmp_path / "c.sqlite3", sqlite=version)
    assert database.rows("PRAGMA journal_mode") == [(mode,)]
    database.close()
    older = Database(tmp_path / "c.sqlite3", sqlite=(3, 40, 1))  # nobody has it open: it is turned back
    assert older.rows("PRAGMA journal_mode") == [("delete",)]


def test_a_log_that_another_program_has_open_is_refused(tmp_path: Path):
    newer = Database(tmp_path / "c.sqlite3", sqlite=(3, 51, 3))
    newer.rows("SELECT * FROM chat")
    with pytest.raises(StorageError, match="newer SQLite"):
        Database(tmp_path / "c.sqlite3", sqlite=(3, 40, 1))


def test_an_older_file_is_brought_up_to_date_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "c.sqlite3"
    store = ChatStore(path)
    chat = talk(store, "kept")
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    broken = (*MIGRATIONS, "ALTER TABLE chat ADD COLUMN colour TEXT;\nALTER TABLE nothing ADD COLUMN x;\n")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(chat)")]
    assert "colour" not in columns
    migrate(connection, (*MIGRATIONS, "ALTER TABLE chat ADD COLUMN colour TEXT;\n"))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    assert connection.execute("SELECT content, colour FROM turn JOIN chat ON chat.id = ?", (chat,)).fetchall()
    connection.close()
    with pytest.raises(StorageError, match="later version"):
        ChatStore(path)


def test_a_file_that_is_none_is_named(tmp_path: Path):
    path = tmp_path / "c.sqlite3"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="damaged or no file of conversations"):
        ChatStore(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be opened"):
        ChatStore(tmp_path / "file" / "c.sqlite3")


def test_everything_goes_out_and_in_again_and_twice_adds_nothing(store: ChatStore, tmp_path: Path):
    chat = talk(store, "q1", "a1", chat=store.create(ChatSettings(system="Be brief.", sampling=Sampling(top_k=3))).id)
    store.turns.end_at(chat, None)
    talk_again = store.turns.add(chat, None, "user", "other beginning")
    store.turns.begin(chat, talk_again, "guide", "half a")
    store.pin(chat, True)
    store.save_prompt("brief", "Be brief.")
    value = export(store)
    other = ChatStore(tmp_path / "other.sqlite3")
    added = import_all(other, value)
    assert (added.chats, added.turns, added.prompts) == (1, 4, 1)
    assert export(other)["chats"][0]["turns"][-1]["state"] == "cut"
    assert [t["content"] for t in export(other)["chats"][0]["turns"]] == ["q1", "a1", "other beginning", "half a"]
    assert texts(other, other.chats()[0].id) == ["other beginning", "half a"]
    assert other.chats()[0].settings == store.chat(chat).settings
    assert other.chats()[0].pinned
    assert import_all(other, value).turns == 0
    store.turns.end_at(chat, talk_again)
    store.turns.add(chat, talk_again, "assistant", "whole")
    assert import_all(other, export(store, [chat])).turns == 1
    assert len(other.chats()) == 1


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"format": "other"},
        {"format": "localllm chats 1", "chats": [{"uid": "a"}]},
        {"format": "localllm chats 1", "chats": 3},
    ],
)
def test_what_is_no_export_adds_nothing(store: ChatStore, value: object):
    with pytest.raises(DataError):
        import_all(store, value)
    assert store.count() == 0


def test_an_import_with_one_bad_turn_adds_nothing(store: ChatStore, tmp_path: Path):
    talk(store, "q", "a")
    value = export(store)
    value["chats"][0]["turns"][1]["parent"] = "nobody"
    other = ChatStore(tmp_path / "other.sqlite3")
    with pytest.raises(DataError, match="nothing was added"):
        import_all(other, value)
    assert other.count() == 0


def test_one_conversation_as_markdown(store: ChatStore):
    chat = talk(store, "Who?", "**Me.**", chat=store.create(ChatSettings(system="Be\nbrief.")).id)
    text = to_markdown(store.chat(chat), store.turns.branch(chat))
    assert text == "# Who?\n\n> System: Be\n> brief.\n\n## You\n\nWho?\n\n## Assistant\n\n**Me.**\n"
    assert find(store, "Who?").id == find(store, str(chat)).id == find(store, store.chat(chat).uid).id == chat
    with pytest.raises(DataError):
        find(store, "nix")


def test_titles_are_one_short_line():
    assert title_from("a\nb  c") == "a b c"
    assert title_from("word " * 40).endswith("word…")
    assert len(title_from("x" * 200)) == 60


def test_prompts_facts_and_what_was_sent_are_remembered(store: ChatStore):
    store.save_prompt("b", "two")
    store.save_prompt("a", "one")
    store.save_prompt("b", "")
    assert store.prompts() == {"a": "one"}
    assert store.fact("welcomed") == ""
    store.remember("welcomed", "yes")
    assert store.fact("welcomed") == "yes"
    talk(store, "first", "reply", "second", "reply")
    assert store.turns.sent() == ["first", "second"]


def test_settings_of_another_version_lose_only_what_is_unknown():
    given = ChatSettings.from_json(
        '{"system": "s", "colour": 1, "adapter": 5, "sampling": {"top_k": "x", "top_p": 0.5}}'
    )
    assert given == ChatSettings(system="s", sampling=Sampling(top_p=0.5))
    assert ChatSettings.from_json("nonsense") == ChatSettings()
