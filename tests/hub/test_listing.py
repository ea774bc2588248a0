"""What a repository holds, from answers that may be long, strange or hostile."""

from __future__ import annotations

import hashlib

import pytest

from localllm.errors import AccessError, HubError, RemoteNotFoundError, UnreachableError
from localllm.hub.http import Hub
from localllm.hub.listing import list_repository
from localllm.hub.surroundings import Surroundings
from tests.hub.conftest import QUICK
from tests.hub.server import TOKEN, HubServer

BIG = bytes(5000)


def test_files_have_the_hashes_that_git_and_lfs_give_them(server: HubServer, hub: Hub) -> None:
    repo = server.repo("me/m", {"a.txt": b"hello\n", "m.gguf": BIG}, tags=("license:mit", "mlx"))
    found = list_repository(hub, "me/m")
    assert (found.commit, found.license, found.revision) == (repo.branches["main"], "mit", "main")
    small, large = found.files
    assert small.digest == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object of "hello\n"
    assert (large.digest, large.size) == (hashlib.sha256(BIG).hexdigest(), 5000)


def test_ten_thousand_files_come_in_pages(server: HubServer, hub: Hub) -> None:
    one = server.repo("me/x", {"x": b"x"}).commits.popitem()[1]["x"]
    server.repo("me/many", {f"f{i:05}": one for i in range(10_000)})
    assert len(list_repository(hub, "me/many").files) == 10_000
    assert sum("/tree/" in asked.path for asked in server.asked) == 10


def test_hostile_names_are_left_out_and_said(server: HubServer, hub: Hub) -> None:
    bad = ("../../.ssh/authorized_keys", "/etc/passwd", "a\x1b[2Jb.gguf", "a\\..\\b.gguf", "C:\\x.gguf", "x/../y.gguf")
    server.repo("me/evil", dict.fromkeys((*bad, "good.gguf"), BIG))
    found = list_repository(hub, "me/evil")
    assert [file.path for file in found.files] == ["good.gguf"]
    assert sorted(found.left_out) == sorted(bad)


def test_another_revision_is_another_commit(server: HubServer, hub: Hub) -> None:
    repo = server.repo("me/m", {"a": b"old"})
    old = repo.branches["main"]
    repo.commit({"a": b"new"})
    repo.commit({"a": b"proposed"}, "refs/pr/1")
    digests = {r: list_repository(hub, "me/m", r).files[0].digest for r in ("", old, "refs/pr/1")}
    assert len(set(digests.values())) == 3
    with pytest.raises(RemoteNotFoundError, match="no revision 'v9'"):
        list_repository(hub, "me/m", "v9")


def test_an_unknown_repository_has_near_names(server: HubServer, hub: Hub) -> None:
    server.repo("bartowski/Qwen3-0.6B-GGUF", {})
    with pytest.raises(RemoteNotFoundError, match=r"Did you mean bartowski/Qwen3-0.6B-GGUF"):
        list_repository(hub, "bartowski/Qwen3-06B-GGUF")
    server.repo("me/private", {}, private=True)
    with pytest.raises(RemoteNotFoundError) as caught:
        list_repository(hub, "me/private")
    assert "Did you mean" not in caught.value.hint


def test_private_and_refused_tokens_are_told_apart(server: HubServer, here: Surroundings) -> None:
    server.repo("me/secret", {"a": b"x"}, private=True)

    def ask(token: str | None) -> object:
        with Hub(Surroundings(here.endpoint, here.cache, token=token), QUICK) as hub:
            return list_repository(hub, "me/secret")

    with pytest.raises(RemoteNotFoundError, match=r"or it is private.*hf auth login"):
        ask(None)
    with pytest.raises(AccessError, match=f"expired or been revoked.*{server.endpoint}/settings/tokens"):
        ask("hf_old")
    assert ask(TOKEN)


@pytest.mark.parametrize("kind", ["500", "503", "busy", "drop", "hang"])
def test_what_passes_is_asked_again(server: HubServer, here: Surroundings, kind: str) -> None:
    server.repo("me/m", {"a": b"x"})
    server.fault(kind, "hub", times=2, seconds=0.6 if kind == "hang" else 0)
    with Hub(Surroundings(here.endpoint, here.cache, timeout=0.3), QUICK) as hub:
        assert list_repository(hub, "me/m").files


def test_what_does_not_pass_ends_with_a_sentence(server: HubServer, hub: Hub) -> None:
    server.repo("me/m", {"a": b"x"})
    server.fault("500", "hub", times=9)
    with pytest.raises(UnreachableError, match="answers with 500"):
        list_repository(hub, "me/m")
    server.faults.clear()
    server.fault("busy", "hub", seconds=86_400)
    with pytest.raises(UnreachableError, match="asks to wait 86400 seconds"):
        list_repository(hub, "me/m")
    server.fault("not-json", "hub")
    with pytest.raises(HubError, match="does not answer as a hub"):
        list_repository(hub, "me/m")
    server.fault("endless", "hub")
    with pytest.raises(HubError, match="far too long"):
        list_repository(hub, "me/m")


def test_no_network_and_offline_mode_are_told(here: Surroundings) -> None:
    nowhere, offline = Surroundings("http://127.0.0.1:9", here.cache), Surroundings(here.endpoint, here.cache, True)
    for where, problem in ((nowhere, "no connection to 127"), (offline, "HF_HUB_OFFLINE is set")):
        with Hub(where, QUICK) as hub, pytest.raises(UnreachableError, match=problem):
            list_repository(hub, "me/m")
