"""Files of results: what stands in them after crashes, full disks and second processes."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import StorageError, UsageError
from localllm.tasks.results import Entry, Results
from tests.conftest import ROOT


def entry_of(row: dict[str, Any]) -> Entry | None:
    return Entry(row["item"], row["key"], row["failed"]) if row.keys() == {"item", "key", "failed"} else None


def row(item: str, key: str = "k", failed: bool = False) -> dict[str, Any]:
    return {"item": item, "key": key, "failed": failed}


def write(path: Path, *rows: dict[str, Any]) -> None:
    with Results(path, entry_of) as results:
        for one in rows:
            results.append(one)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_written_is_found_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "new/out.jsonl"
    write(path, row("a"), row("b", failed=True))
    with Results(path, entry_of) as results:
        assert results.found == {"a": Entry("a", "k", False), "b": Entry("b", "k", True)}
        results.append(row("c"))
    assert read(path) == [row("a"), row("b", failed=True), row("c")]
    assert [p.name for p in path.parent.iterdir()] == ["out.jsonl"]


def test_dropped_rows_are_gone_and_the_others_keep_their_bytes_and_order(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, row("a"), row("b"), row("ü"), row("d"))
    path.chmod(0o640)
    lines = path.read_bytes().splitlines(keepends=True)
    with Results(path, entry_of) as results:
        results.drop({"b", "d", "unknown"})
        assert results.found.keys() == {"a", "ü"}
        results.append(row("b", "new"))
    assert path.read_bytes().splitlines(keepends=True)[:2] == [lines[0], lines[2]]
    assert read(path)[2:] == [row("b", "new")]
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real.jsonl", row("a"), row("b"))
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    with Results(tmp_path / "link.jsonl", entry_of) as results:
        results.drop({"a"})
    assert (tmp_path / "link.jsonl").is_symlink()
    assert read(tmp_path / "real.jsonl") == [row("b")]


def test_a_half_written_row_is_dropped_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    whole = json.dumps(row("a")).encode() + b"\n"
    last = json.dumps(row("b")).encode()
    for cut in range(1, len(last) + 1):
        path.write_bytes(whole + last[:cut])
        with Results(path, entry_of) as results:
            assert results.found.keys() == {"a"}
            results.append(row("c"))
        assert read(path) == [row("a"), row("c")]


@pytest.mark.parametrize(
    "content",
    [b"Dear Ada,", b"Dear Ada,\n", b'{"other": 1}', b'{"other": 1}\n', b"[1]\n", b'{"item": \n{"item"'],
    ids=repr,
)
def test_somebody_elses_file_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="line 1 is no result"), Results(path, entry_of):
        pass
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["letter"]


def test_a_folder_or_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"), Results(tmp_path, entry_of):
        pass
    with pytest.raises(UsageError, match="not a regular file"), Results(Path("/dev/null"), entry_of):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"), Results(tmp_path / "file/out.jsonl", entry_of):
        pass


def test_a_second_process_is_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Results(path, entry_of) as results:
        results.append(row("a"))
        with pytest.raises(StorageError, match=f"process {os.getpid()}"), Results(path, entry_of):
            pass
        results.append(row("b"))
    assert read(path) == [row("a"), row("b")]


def test_a_full_disk_costs_one_row_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, row("a"), row("b"))
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Results(path, entry_of) as results:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
            with pytest.raises(StorageError, match="Cannot write"):
                results.append(row("c"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
            with pytest.raises(StorageError, match="Cannot write"):
                results.drop({"a"})
            assert results.found.keys() == {"a", "b"}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


WORKER = """
import sys
from pathlib import Path
from localllm.tasks.results import Results
from tests.tasks.test_results import entry_of, row
with Results(Path(sys.argv[1]), entry_of) as results:
    results.drop([item for item, entry in results.found.items() if entry.key != sys.argv[2]])
    print("begun", flush=True)
    for number in range(60):
        if str(number) not in results.found:
            results.append(row(str(number), sys.argv[2]))
print("done", flush=True)
"""


def test_kill_at_any_time_leaves_every_item_exactly_once(tmp_path: Path) -> None:
    path, rng = tmp_path / "out.jsonl", random.Random(3)
    for key in ("first", "second"):
        for _ in range(3):
            child = _start(path, key)
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(rng.uniform(0.0, 0.01))
            child.kill()
            child.communicate()
        child = _start(path, key)
        assert child.communicate()[0].splitlines()[-1] == "done"
        assert sorted(int(one["item"]) for one in read(path)) == list(range(60))
        assert {one["key"] for one in read(path)} == {key}
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def _start(path: Path, key: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(path), key]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
