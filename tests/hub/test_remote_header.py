"""Headers of GGUF files by ranges, without their weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from localllm.errors import HubError, InvalidModelError
from localllm.hub.http import Hub
from localllm.hub.listing import list_repository
from localllm.hub.remote_header import read_beginning
from localllm.weights.gguf import read_header
from localllm.weights.parts import finished
from localllm.weights.parts import read_beginning as parse
from tests.hub.server import HubServer


def test_a_header_costs_its_own_length_and_no_weights(server: HubServer, hub: Hub, guide_path: Path) -> None:
    server.repo("me/m", {"m.gguf": guide_path})
    repository = list_repository(hub, "me/m")
    file = repository.files[0]
    part = read_beginning(hub, repository, file, lambda b: parse(Path("m.gguf"), b, file.size), first=4096)
    expected = read_header(guide_path)
    assert finished(part).tensors == expected.tensors
    assert expected.data_offset <= server.bytes_sent() <= 2 * expected.data_offset
    asked = [a.range for a in server.asked if a.place == "store"]
    assert asked[0] == "bytes=0-4095"
    assert len(asked) < 8


@pytest.mark.parametrize("kind", ["drop", "range", "500", "etag"])
def test_faults_on_the_way_are_passed(server: HubServer, hub: Hub, guide_path: Path, kind: str) -> None:
    server.repo("me/m", {"m.gguf": guide_path})
    repository = list_repository(hub, "me/m")
    file = repository.files[0]
    server.fault(kind, at=1000)
    assert finished(read_beginning(hub, repository, file, lambda b: parse(Path("m"), b, file.size))).tensors


def test_a_server_without_ranges_is_only_listened_to_as_far_as_needed(
    server: HubServer, hub: Hub, guide_path: Path
) -> None:
    server.repo("me/m", {"m.gguf": guide_path})
    repository = list_repository(hub, "me/m")
    file = repository.files[0]
    server.fault("whole", times=9)
    assert finished(read_beginning(hub, repository, file, lambda b: parse(Path("m"), b, file.size))).tensors


def test_what_is_no_gguf_is_refused_from_its_first_bytes(server: HubServer, hub: Hub) -> None:
    server.repo("me/m", {"m.gguf": b"<html>" * 200_000})
    repository = list_repository(hub, "me/m")
    with pytest.raises(InvalidModelError, match="not a GGUF"):
        read_beginning(hub, repository, repository.files[0], lambda b: parse(Path("m"), b, 1_200_000))
    assert server.bytes_sent() < 500_000


def test_a_header_that_never_ends_is_given_up(server: HubServer, hub: Hub) -> None:
    server.repo("me/m", {"m.gguf": bytes(100_000)})
    repository = list_repository(hub, "me/m")
    with pytest.raises(HubError, match="does not end"):
        read_beginning(hub, repository, repository.files[0], partial(lambda b: len(b) + 1))
