"""The test hub, and a connection to it with a cache of its own and short pauses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.hub.http import Hub, Limits
from localllm.hub.surroundings import Surroundings
from tests.hub.server import HubServer, serving

QUICK = Limits(attempts=4, first_pause=0.01, longest_pause=0.05, longest_asked=2.0, stalled_seconds=0.5)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving() as hub:
        yield hub


@pytest.fixture
def here(server: HubServer, tmp_path: Path) -> Surroundings:
    return Surroundings(server.endpoint, tmp_path / "hf" / "hub", timeout=2.0)


@pytest.fixture
def hub(here: Surroundings) -> Iterator[Hub]:
    with Hub(here, QUICK) as connection:
        yield connection
