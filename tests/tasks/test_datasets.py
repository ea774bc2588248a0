"""Datasets of the hub by name: which files come, what is used without a network, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from localllm.data.dataset import has_valid, read_dataset
from localllm.errors import AccessError, DataError, IntegrityError, RemoteNotFoundError, UnreachableError, UsageError
from localllm.hub.surroundings import Surroundings
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.datasets import LEARNED, DatasetHere, DatasetListed, fetch_dataset, may_be_dataset
from tests.hub.conftest import QUICK
from tests.hub.server import TOKEN, HubServer, serving


def rows(*texts: str) -> bytes:
    return b"".join(b'{"text": "%s"}\n' % text.encode() for text in texts)


FILES = {
    "README.md": b"# Sums", "load.py": b"raise SystemExit", "data/train-00000-of-00002.jsonl": rows("a", "b"),
    "data/train-00001-of-00002.jsonl": rows("c" * 9000), "data/validation-00000-of-00001.jsonl": rows("d"),
    "data/test-00000-of-00001.jsonl": rows("e"),
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving() as hub:
        yield hub


@pytest.fixture
def here(server: HubServer, tmp_path: Path) -> Surroundings:
    return Surroundings(server.endpoint, tmp_path / "hf" / "hub", timeout=2.0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


def fetched(
    registry: Registry, here: Surroundings, text: str, revision: str = "", splits: tuple[str, ...] = LEARNED
) -> DatasetHere:
    *_, last = fetch_dataset(registry, text, revision, splits, None, here, QUICK)
    assert isinstance(last, DatasetHere)
    return last


def test_training_and_validation_files_come_and_nothing_else(
    server: HubServer, here: Surroundings, registry: Registry
) -> None:
    repo = server.repo("datasets/me/sums", FILES)
    listed, *_, last = fetch_dataset(registry, "me/sums", here=here, limits=QUICK)
    assert isinstance(listed, DatasetListed)
    assert isinstance(last, DatasetHere)
    assert (listed.files, listed.to_fetch) == (3, listed.bytes)
    assert [row.text for row in read_dataset(last.path)] == ["a", "b", "c" * 9000]
    assert has_valid(last.path)
    assert [row.text for row in read_dataset(last.path, "valid")] == ["d"]
    assert sorted(path.name for path in last.path.rglob("*.*")) == sorted(
        Path(name).name for name in FILES if "train" in name or "valid" in name
    )
    assert (last.short, last.label) == ("sums", f"me/sums@{repo.branches['main'][:12]}")
    (found,) = scan_cache_dir(here.cache).repos  # where huggingface_hub has datasets
    assert (found.repo_type, found.repo_id, found.nb_files) == ("dataset", "me/sums", 3)
    folder = snapshot_download("me/sums", repo_type="dataset", cache_dir=here.cache, local_files_only=True)
    assert Path(folder) == last.path
    again = fetched(registry, here, "hf.co/datasets/me/sums", splits=(*LEARNED, "test"))
    assert again.received == len(FILES["data/test-00000-of-00001.jsonl"])
    assert [row.text for row in read_dataset(again.path, "test")] == ["e"]


def test_a_file_a_folder_and_a_revision_can_be_named(server: HubServer, here: Surroundings, registry: Registry) -> None:
    repo = server.repo("datasets/me/two", {"en/train.csv": b"text\nhello\n", "de/train.csv": b"text\nhallo\n"})
    first = repo.branches["main"]
    with pytest.raises(DataError, match=r"more than one set of train files .* Name one .*, as me/two/de\."):
        fetched(registry, here, "me/two")
    assert [row.text for row in read_dataset(fetched(registry, here, "me/two/de").path)] == ["hallo"]
    found = fetched(registry, here, "https://hf.co/datasets/me/two/blob/main/en/train.csv")
    assert (found.path.name, found.short) == ("train.csv", "train")
    with pytest.raises(RemoteNotFoundError, match=r"me/two has no fr\. It holds de, en\."):
        fetched(registry, here, "me/two/fr")
    repo.commit({"train.csv": b"text\nnew\n"})
    assert [row.text for row in read_dataset(fetched(registry, here, "me/two").path)] == ["new"]
    assert fetched(registry, here, "me/two/en", first).commit == first
    with pytest.raises(RemoteNotFoundError, match="has no revision 'v9'"):
        fetched(registry, here, "me/two", "v9")


def test_without_the_hub_what_is_complete_here_is_used(
    server: HubServer, here: Surroundings, registry: Registry
) -> None:
    server.repo("datasets/me/sums", FILES)
    offline, away = replace(here, offline=True), replace(here, endpoint="http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE is set"):
        fetched(registry, offline, "me/sums")
    path = fetched(registry, here, "me/sums").path
    assert [fetched(registry, where, "me/sums").path for where in (offline, away)] == [path, path]
    for revision in ("v2", "../../.."):
        with pytest.raises(UnreachableError):
            fetched(registry, offline, "me/sums", revision)
    next(path.rglob("train-00001*")).unlink()  # as of someone who fetched one part only
    with pytest.raises(UnreachableError):
        fetched(registry, offline, "me/sums")


def test_what_cannot_be_had_says_why_and_what_to_do(server: HubServer, here: Surroundings, registry: Registry) -> None:
    server.repo("datasets/me/sums", FILES)
    server.repo("me/sums-model", {"m-Q4_0.gguf": b"x"})
    server.repo("datasets/me/gated", FILES, gated="auto")
    server.repo("datasets/me/private", FILES, private=True)
    server.repo("datasets/me/code", {"load.py": b"x", "a.zip": b"x"})
    page = f"{server.endpoint}/datasets/me/gated"
    for name, error, words in (
        ("me/summs", RemoteNotFoundError, "no repository datasets/me/summs, .* Did you mean me/sums?"),
        ("me/sums-model", RemoteNotFoundError, "no repository datasets/me/sums-model"),
        ("me/private", RemoteNotFoundError, "or it is private"),
        ("me/gated", AccessError, f"gated, and there is no token. Accept its conditions on {page}, "),
        ("me/code", DataError, r"no data files\. It holds a.zip, load.py\. .* --revision refs/convert/parquet"),
        ("hf.co/spaces/me/x", UsageError, "is not a dataset"),
        ("datasets/me", UsageError, "does not name a repository"),
    ):
        with pytest.raises(error, match=words):
            fetched(registry, here, name)
    with pytest.raises(AccessError, match="does not accept your token"):
        fetched(registry, replace(here, token="hf_old"), "me/gated")
    server.allowed.add(TOKEN)
    assert fetched(registry, replace(here, token=TOKEN), "me/gated").received > 0
    assert fetched(registry, replace(here, token=TOKEN), "me/private").received > 0


def test_it_resumes_and_is_verified_as_models_are(server: HubServer, here: Surroundings, registry: Registry) -> None:
    content = rows(*("x" * 1000 for _ in range(12_000)))
    server.repo("datasets/me/large", {"train.jsonl": content})
    server.fault("drop", at=9 << 20)
    server.fault("503", times=QUICK.attempts)
    with pytest.raises(UnreachableError, match="what has arrived is kept"):
        fetched(registry, here, "me/large")
    rest = fetched(registry, here, "me/large")
    assert rest.received == len(content) - (9 << 20)
    assert (rest.path / "train.jsonl").read_bytes() == content
    server.repo("datasets/me/small", {"train.jsonl": content[: 1 << 20]})
    server.fault("wrong", at=5)
    with pytest.raises(IntegrityError, match="hub"):
        fetched(registry, here, "me/small")
    assert not list(here.cache.glob("datasets--me--small/snapshots/*/*"))
    assert fetched(registry, here, "me/small").received == 1 << 20


@pytest.mark.parametrize(
    "text, is_one",
    [
        ("me/sums", True), ("me/sums/en/train.jsonl", True), ("hf.co/datasets/me/sums", True), ("me/gsm8k.v2", True),
        ("https://huggingface.co/datasets/me/sums", True), ("me/sums.jsonl", False), ("sums", False),
        ("./me/sums", False), ("../me/sums", False), ("/me/sums", False), ("~/me/sums", False), ("tests/none", False),
        ("tests/data", False), ("rows.jsonl", False),
    ],
)  # fmt: skip
def test_what_is_meant_for_the_disk_is_not_asked_for(text: str, is_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert may_be_dataset(text) is is_one
