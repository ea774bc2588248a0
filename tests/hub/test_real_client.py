"""The real huggingface_hub against the test hub and on our cache: the same names, hashes and files, both ways."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, scan_cache_dir, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from localllm.hub.cache import RepoCache
from localllm.hub.download import download
from localllm.hub.events import Fetched
from localllm.hub.http import Hub
from localllm.hub.listing import list_repository
from localllm.hub.surroundings import Surroundings
from tests.hub.conftest import QUICK
from tests.hub.server import TOKEN, HubServer

DATA = random.Random(1).randbytes(2_000_000)
FILES = {"config.json": b"{}", "m-Q4_0.gguf": DATA, "sub/notes.txt": b"notes"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def test_it_finds_in_the_test_hub_what_it_would_find_in_the_real_one(server: HubServer, hub: Hub) -> None:
    repo = server.repo("me/m", FILES, tags=("license:mit",))
    server.page_size = 2
    api = HfApi(endpoint=server.endpoint, token=TOKEN)
    commit = repo.branches["main"]
    assert api.model_info("me/m").sha == commit
    tree = {file.path: file for file in api.list_repo_tree("me/m", recursive=True)}
    assert api.get_paths_info("me/m", ["m-Q4_0.gguf"])[0].lfs == tree["m-Q4_0.gguf"].lfs
    metadata = get_hf_file_metadata(hf_hub_url("me/m", "m-Q4_0.gguf", endpoint=server.endpoint))
    assert (metadata.etag, metadata.size, metadata.commit_hash) == (hashlib.sha256(DATA).hexdigest(), len(DATA), commit)
    ours = {file.path: (file.digest, file.size) for file in list_repository(hub, "me/m").files}
    theirs = {p: (f.lfs.sha256 if f.lfs else f.blob_id, f.size) for p, f in tree.items()}
    assert ours == theirs
    assert api.whoami()["name"] == "someone"


def test_it_finds_datasets_as_in_the_real_one(server: HubServer, hub: Hub, here: Surroundings) -> None:
    files = {"data/train.jsonl": b"{}\n" * 3000, "README.md": b"x"}
    repo = server.repo("datasets/me/d", files)
    server.repo("me/d", FILES)
    api = HfApi(endpoint=server.endpoint, token=TOKEN)
    assert api.dataset_info("me/d").sha == repo.branches["main"] != api.model_info("me/d").sha
    assert [found.id for found in api.list_datasets(author="me")] == ["me/d"]
    tree = {file.path: file for file in api.list_repo_tree("me/d", repo_type="dataset", recursive=True)}
    ours = {file.path: (file.digest, file.size) for file in list_repository(hub, "datasets/me/d").files}
    assert ours == {p: (f.lfs.sha256 if f.lfs else f.blob_id, f.size) for p, f in tree.items() if hasattr(f, "size")}
    get = partial(hf_hub_download, repo_type="dataset", endpoint=server.endpoint, cache_dir=here.cache)
    for path, content in files.items():
        assert Path(get("me/d", path)).read_bytes() == content
    server.repo("datasets/me/gated", files, gated="auto")
    with pytest.raises(GatedRepoError):
        get("me/gated", "README.md", token=False)


def test_it_is_refused_as_by_the_real_one(server: HubServer) -> None:
    server.repo("me/m", FILES)
    server.repo("me/gated", FILES, gated="manual")
    anonymous, known = HfApi(endpoint=server.endpoint, token=False), HfApi(endpoint=server.endpoint, token=TOKEN)
    with pytest.raises(RepositoryNotFoundError):
        anonymous.model_info("me/none")
    with pytest.raises(RevisionNotFoundError):
        anonymous.model_info("me/m", revision="v9")
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(hf_hub_url("me/gated", "config.json", endpoint=server.endpoint), token=known.token)


def test_what_we_fetched_it_has(server: HubServer, here: Surroundings, hub: Hub) -> None:
    server.repo("me/m", FILES)
    repository = list_repository(hub, "me/m")
    list(download(hub, repository, repository.files))
    found = scan_cache_dir(here.cache)
    assert not found.warnings
    (repo,) = found.repos
    assert (repo.repo_id, repo.nb_files, repo.size_on_disk) == ("me/m", 3, sum(map(len, FILES.values())))
    (revision,) = repo.revisions
    assert (revision.commit_hash, revision.refs) == (repository.commit, frozenset({"main"}))
    before = server.bytes_sent()
    path = hf_hub_download("me/m", "m-Q4_0.gguf", cache_dir=here.cache, endpoint=server.endpoint)
    assert Path(path) == RepoCache(here.cache, "me/m").pointer(repository.commit, "m-Q4_0.gguf")
    assert server.bytes_sent() == before
    folder = snapshot_download("me/m", cache_dir=here.cache, local_files_only=True)
    assert Path(folder) == RepoCache(here.cache, "me/m").snapshot(repository.commit)


def test_what_it_fetched_we_have(server: HubServer, here: Surroundings, hub: Hub) -> None:
    server.repo("me/m", FILES)
    snapshot_download("me/m", cache_dir=here.cache, endpoint=server.endpoint)
    repository = list_repository(hub, "me/m")
    before = server.bytes_sent()
    events = list(download(hub, repository, repository.files))
    assert all(event.received == 0 for event in events if isinstance(event, Fetched))
    assert server.bytes_sent() == before


def test_it_waits_while_we_hold_the_lock_of_a_file(server: HubServer, here: Surroundings, hub: Hub) -> None:
    """Both at once in two processes: the file is fetched once, by whoever came first."""
    server.repo("me/m", FILES)
    server.fault("drip", at=len(DATA) - 20, seconds=0.1)
    script = "import sys; from huggingface_hub import hf_hub_download as get; get('me/m', 'm-Q4_0.gguf')"
    environment = os.environ | {
        "HF_ENDPOINT": server.endpoint, "HF_HUB_CACHE": str(here.cache), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(here.cache.parent),
    }  # fmt: skip
    repository = list_repository(hub, "me/m")
    other = None
    for event in download(hub, repository, repository.files):
        if other is None and getattr(event, "path", "") == "m-Q4_0.gguf":
            other = subprocess.Popen([sys.executable, "-c", script], env=environment)
    assert other is not None
    assert other.wait(30) == 0
    assert server.bytes_sent() < len(DATA) + 1000  # not twice


def test_surroundings_are_those_of_huggingface_hub(tmp_path: Path) -> None:
    script = (
        "from localllm.hub.surroundings import surroundings as s; h = s(); "
        "print(h.endpoint, h.cache, h.offline, h.token, h.symlinks)"
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("hf_file\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}

    def said(**changes: str) -> str:
        environment = clean | {"HF_HOME": str(home)} | changes
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert said() == f"https://huggingface.co {home}/hub False hf_file True"
    changed = said(HF_ENDPOINT="http://mirror:1/", HF_TOKEN="hf_env", HF_HUB_CACHE="/c", HF_HUB_DISABLE_SYMLINKS="1")
    assert changed == "http://mirror:1 /c False hf_env False"
    assert said(HF_HUB_OFFLINE="1") == f"https://huggingface.co {home}/hub True None True"


def test_a_file_that_only_xet_has_goes_through_its_client_and_is_hashed_after(
    server: HubServer, here: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client itself is not run here: what it writes is, and what it is told."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    server.repo("me/m", {"m-Q4_0.gguf": DATA}, xet=True)
    server.plain_refused = True
    told: list[object] = []

    def write(content: bytes) -> object:
        def xet_get(*, incomplete_path: Path, **options: object) -> None:
            told.append(options)
            incomplete_path.write_bytes(content)

        return xet_get

    with Hub(replace(here, token=TOKEN), QUICK) as hub:
        repository = list_repository(hub, "me/m")
        monkeypatch.setattr("huggingface_hub.file_download.xet_get", write(DATA[:-1] + b"x"))
        with pytest.raises(Exception, match="did not arrive as the hub has it"):
            list(download(hub, repository, repository.files))
        monkeypatch.setattr("huggingface_hub.file_download.xet_get", write(DATA))
        (done,) = [e for e in download(hub, repository, repository.files) if isinstance(e, Fetched)]
    assert done.where.read_bytes() == DATA
    data = told[-1]["xet_file_data"]  # type: ignore[index]
    assert data.file_hash == repository.files[0].xet
    assert data.refresh_route == f"{server.endpoint}/api/models/me/m/xet-read-token/{repository.commit}"
