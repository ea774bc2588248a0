"""A file arrives whole and verified, or an error says so and what has arrived is kept."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.errors import CancelledError, HubError, IntegrityError, StorageError, TransferError, UnreachableError
from localllm.hub import download as module
from localllm.hub.cache import RepoCache
from localllm.hub.download import download
from localllm.hub.events import Damaged, Fetched, HubEvent, Progress, Retrying, Waiting
from localllm.hub.http import Hub
from localllm.hub.listing import Repository, list_repository
from localllm.hub.partial import STEP
from localllm.hub.surroundings import Surroundings
from tests.hub.conftest import QUICK
from tests.hub.server import TOKEN, HubServer

SIZE = 3 * STEP // 2
DATA = random.Random(0).randbytes(SIZE)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def repository(server: HubServer, hub: Hub) -> Repository:
    server.repo("me/m", {"config.json": b'{"a": 1}', "sub/m-Q4_0.gguf": DATA})
    return list_repository(hub, "me/m")


def blob(here: Surroundings) -> Path:
    return RepoCache(here.cache, "me/m").blob(SHA256)


def run(hub: Hub, repository: Repository) -> list[HubEvent]:
    return list(download(hub, repository, repository.files))


def fetched(events: Sequence[HubEvent]) -> Fetched:
    return next(e for e in events if isinstance(e, Fetched) and e.path.endswith(".gguf"))


def test_files_lie_where_huggingface_hub_looks_for_them(here: Surroundings, hub: Hub, repository: Repository) -> None:
    events = run(hub, repository)
    cache = RepoCache(here.cache, "me/m")
    pointer = cache.snapshot(repository.commit) / "sub" / "m-Q4_0.gguf"
    assert fetched(events).where == pointer
    assert pointer.read_bytes() == DATA
    assert os.readlink(pointer) == f"../../../blobs/{SHA256}"
    assert (cache.folder / "refs" / "main").read_text() == repository.commit
    assert sorted(p.name for p in (cache.folder / "blobs").iterdir()) == sorted(f.digest for f in repository.files)
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert (last.all_done, last.all_total) == (SIZE + 8, SIZE + 8)


def test_what_is_here_is_not_fetched_again(server: HubServer, hub: Hub, repository: Repository) -> None:
    run(hub, repository)
    server.asked.clear()
    assert fetched(run(hub, repository)).received == 0
    assert server.asked == []


FAULTS = [
    ("drop", {"at": 5_000_000}), ("drop", {"at": 0}), ("length", {}), ("range", {}), ("500", {}), ("503", {}),
    ("busy", {"seconds": 1}), ("hang", {"seconds": 3}), ("stop", {"at": 3_000_000, "seconds": 5}),
    ("drip", {"at": 2_000_000, "seconds": 0.05}), ("compressed", {}), ("whole", {}), ("etag", {}),
]  # fmt: skip


@pytest.mark.parametrize("kind, options", FAULTS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(FAULTS)])
def test_a_passing_fault_costs_no_more_than_it_must(
    server: HubServer, here: Surroundings, repository: Repository, kind: str, options: dict[str, float]
) -> None:
    """The fault comes in the middle: on the request that goes on after a drop."""
    server.fault("drop", at=5_000_000)
    server.faults.append(replace(server.faults[0], kind=kind, **options))
    with Hub(replace(here, timeout=1.0), QUICK) as hub:
        run(hub, repository)
    assert blob(here).read_bytes() == DATA
    # what was under way when the connection was given up, and a megabyte that waited to be full
    assert server.bytes_sent() - SIZE <= STEP, [(a.range, a.sent) for a in server.asked if a.place == "store"]


@pytest.mark.parametrize("kind", ["403", "404", "loop", "elsewhere"])
def test_a_fault_that_does_not_pass_ends_at_once_and_keeps_what_has_arrived(
    server: HubServer, here: Surroundings, hub: Hub, repository: Repository, kind: str
) -> None:
    server.fault("drop", at=5_000_000)
    for event in download(hub, repository, repository.files):
        if isinstance(event, Retrying):  # the next request is the one that goes on
            server.fault(kind, "store" if kind in ("403", "404") else "resolve", times=20)
            break
    with pytest.raises(HubError) as raised:
        run(hub, repository)
    server.faults.clear()
    assert raised.value.hint
    assert not blob(here).exists()
    run(hub, repository)
    assert blob(here).read_bytes() == DATA
    assert server.bytes_sent() - SIZE <= STEP


def test_a_server_without_ranges_sends_everything_again(server: HubServer, hub: Hub, repository: Repository) -> None:
    server.fault("drop", at=5_000_000)
    server.fault("whole", times=9)
    assert fetched(run(hub, repository)).where.read_bytes() == DATA


def test_the_same_number_of_wrong_bytes_is_deleted_and_said(
    server: HubServer, here: Surroundings, hub: Hub, repository: Repository
) -> None:
    server.fault("wrong", at=SIZE - 5)
    with pytest.raises(IntegrityError, match=r"did not arrive as the hub has it.*deleted"):
        run(hub, repository)
    names = {path.name for path in blob(here).parent.iterdir()}
    assert not any(name.startswith(SHA256) for name in names)
    assert not (RepoCache(here.cache, "me/m").folder / "refs").exists()
    assert fetched(run(hub, repository)).kept == 0


def test_a_small_file_is_held_against_gits_hash(server: HubServer, hub: Hub, repository: Repository) -> None:
    server.fault("wrong", "resolve", match="resolve-cache")
    server.find(repository.files[0].digest)
    file = next(f for f in server.repos["me/m"].commits[repository.commit].values() if f.size == 8)
    file.content = b'{"a": 2}'
    server.faults.clear()
    with pytest.raises(IntegrityError, match=r"config.json did not arrive"):
        run(hub, repository)


def test_a_file_that_changed_on_the_hub_is_not_mixed(server: HubServer, hub: Hub, repository: Repository) -> None:
    file = server.repos["me/m"].commits[repository.commit]["sub/m-Q4_0.gguf"]
    file.content = bytes(SIZE)
    file.sha256 = hashlib.sha256(bytes(SIZE)).hexdigest()
    with pytest.raises(TransferError, match="has changed on the hub"):
        run(hub, repository)


def test_a_branch_that_moves_meanwhile_is_no_matter(server: HubServer, hub: Hub, repository: Repository) -> None:
    server.fault("drop", at=5_000_000)
    events = download(hub, repository, repository.files)
    for event in events:
        if isinstance(event, Retrying):
            server.repos["me/m"].commit({"sub/m-Q4_0.gguf": b"other" * 5000})
    assert (RepoCache(hub.here.cache, "me/m").snapshot(repository.commit) / "sub/m-Q4_0.gguf").read_bytes() == DATA


def test_a_cancel_ends_at_once_even_when_nothing_comes(
    server: HubServer, here: Surroundings, repository: Repository
) -> None:
    server.fault("stop", at=4_000_000, seconds=20)
    cancel = threading.Event()
    with Hub(replace(here, timeout=30), QUICK, cancel) as hub:
        threading.Timer(0.6, cancel.set).start()
        with pytest.raises(CancelledError, match="kept"):
            run(hub, repository)
    with Hub(here, QUICK) as hub:
        assert fetched(run(hub, repository)).kept == 4_000_000


KILLED = """
import sys, os, signal
from pathlib import Path
from localllm.hub.download import download
from localllm.hub.events import Progress
from localllm.hub.http import Hub
from localllm.hub.listing import list_repository
from localllm.hub.surroundings import Surroundings
with Hub(Surroundings(sys.argv[1], Path(sys.argv[2]))) as hub:
    repository = list_repository(hub, "me/m")
    for event in download(hub, repository, repository.files):
        if isinstance(event, Progress) and event.done > int(sys.argv[3]) and event.path.endswith("gguf"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_costs_the_next_one_at_most_a_step(
    server: HubServer, here: Surroundings, hub: Hub, repository: Repository
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, here.endpoint, str(here.cache), str(STEP + 3_000_000)], check=False, timeout=60
    )
    assert killed.returncode == -9
    before = server.bytes_sent()
    event = fetched(run(hub, repository))
    assert event.kept >= STEP
    assert server.bytes_sent() - before == event.received == SIZE - event.kept


def test_holes_and_changes_in_what_a_crash_left_are_found(
    server: HubServer, here: Surroundings, hub: Hub, repository: Repository
) -> None:
    subprocess.run(
        [sys.executable, "-c", KILLED, here.endpoint, str(here.cache), str(STEP + 3_000_000)], check=False, timeout=60
    )
    partial = RepoCache(here.cache, "me/m").incomplete(SHA256)
    with partial.open("r+b") as file:
        file.seek(STEP // 2)
        file.write(bytes(4096))
    event = fetched(run(hub, repository))
    assert event.kept == 0
    assert event.where.read_bytes() == DATA


def test_two_at_once_fetch_each_file_once(server: HubServer, here: Surroundings, repository: Repository) -> None:
    server.fault("drip", at=SIZE - 8, seconds=0.1)
    seen: list[list[HubEvent]] = [[], []]

    def work(events: list[HubEvent]) -> None:
        with Hub(here, QUICK) as hub:
            events += run(hub, repository)

    threads = [threading.Thread(target=work, args=(events,)) for events in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched(events).received for events in seen) == [0, SIZE]
    assert any(isinstance(event, Waiting) for events in seen for event in events)
    assert server.bytes_sent() == SIZE


def test_a_damaged_blob_is_replaced(server: HubServer, here: Surroundings, hub: Hub, repository: Repository) -> None:
    run(hub, repository)
    blob(here).write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))  # the size that other programs look at
    events = run(hub, repository)
    assert any(isinstance(event, Damaged) for event in events)
    assert blob(here).read_bytes() == DATA


def test_the_token_goes_to_the_hub_alone(server: HubServer, here: Surroundings, repository: Repository) -> None:
    server.asked.clear()
    with Hub(replace(here, token=TOKEN), QUICK) as hub:
        run(hub, repository)
    assert {asked.authorization for asked in server.asked if asked.place == "hub"} == {f"Bearer {TOKEN}"}
    assert {asked.authorization for asked in server.asked if asked.place == "store"} == {""}


def test_a_secure_address_does_not_lead_to_one_that_is_not(here: Surroundings) -> None:
    hub = Hub(replace(here, endpoint="https://hub.example"))
    with pytest.raises(TransferError, match="secure address to one that is not"):
        hub._target("https://hub.example/a", "http://hub.example/b")
    assert hub._target("https://hub.example/a", "/b") == "https://hub.example/b"
    with pytest.raises(TransferError):
        hub._target("https://hub.example/a", "file:///etc/passwd")


def test_a_disk_without_room_is_seen_before_anything_is_fetched(
    server: HubServer, hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RepoCache, "free", lambda self: SIZE)
    server.asked.clear()
    with pytest.raises(StorageError, match=r"\d MB are still to come.*left.*HF_HOME"):
        run(hub, repository)
    assert server.asked == []


@pytest.mark.parametrize("where", ["/proc/none", "file"])
def test_a_cache_that_cannot_be_written_is_named(
    server: HubServer, here: Surroundings, repository: Repository, tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").touch()
    server.asked.clear()
    place = tmp_path / where / "hub"  # /proc/none replaces the folder
    with Hub(replace(here, cache=place), QUICK) as hub, pytest.raises(StorageError, match=f"{where}.*HF_HOME"):
        run(hub, repository)
    assert server.asked == []


def test_a_disk_that_fills_up_keeps_what_has_arrived(here: Surroundings, repository: Repository) -> None:
    """A limit on the size of files stands for the disk; blocks of up to 2 MiB may be lost at it."""
    script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({STEP + 3_000_000},) * 2); import signal; "
    script += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys_argv = None\n" + KILLED
    arguments = [sys.executable, "-c", script, here.endpoint, str(here.cache), "999999999"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert "StorageError" in done.stderr
    assert "what has arrived is kept" in done.stderr
    with Hub(here, QUICK) as hub:
        assert fetched(run(hub, repository)).kept >= STEP


def test_a_cache_that_cannot_be_written_is_said(here: Surroundings, hub: Hub, repository: Repository) -> None:
    here.cache.parent.mkdir(parents=True)
    here.cache.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="HF_HOME name a folder that can be written"):
        run(hub, repository)


def test_without_symbolic_links_the_file_lies_in_the_snapshot(here: Surroundings, repository: Repository) -> None:
    with Hub(replace(here, symlinks=False), QUICK) as hub:
        where = fetched(run(hub, repository)).where
    assert not where.is_symlink()
    assert where.read_bytes() == DATA


def test_endless_failures_end(server: HubServer, hub: Hub, repository: Repository) -> None:
    server.fault("500", times=99)
    with pytest.raises(UnreachableError, match=r"answers with 500.*what has arrived is kept"):
        run(hub, repository)
    assert len(server.faults) > 90


def test_a_speed_is_that_of_the_last_seconds(repository: Repository) -> None:
    meter = module.Meter(1000)
    file = replace(repository.files[0], size=1000)
    shown = [meter.progress(file, done, now=10.0 + at) for at, done in ((0, 0), (0.01, 50), (1, 100), (2, 300))]
    assert shown[1] is None
    last = shown[-1]
    assert last is not None
    assert (last.bytes_per_second, last.seconds_left) == (150.0, pytest.approx(700 / 150))
