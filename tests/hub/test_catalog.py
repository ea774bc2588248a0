"""The catalog that comes with the program, and the script that keeps it true."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import Any

import pytest

from localllm.hub.http import Hub
from localllm.store.catalog import cards
from localllm.weights.gguf import read_header
from scripts.check_catalog import check
from tests.hub.server import HubServer

ENTRIES = {name: card for name, card in cards().items() if "file" not in card}


def test_the_catalog_spans_what_a_laptop_can_hold() -> None:
    weights = sorted(card["parameters"] for card in ENTRIES.values())
    assert len(weights) >= 20
    assert weights[0] < 200e6
    assert 14e9 <= weights[-1] < 15e9


def test_every_entry_says_all_that_is_shown_of_it() -> None:
    repos = [card[kind]["repo"] for card in ENTRIES.values() for kind in ("gguf", "mlx")]
    assert len(set(repos)) == len(repos)
    for name, card in ENTRIES.items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]+", name)
        assert card["name"] == name
        assert card["description"].endswith(".")
        assert len(card["description"]) < 120
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", card[kind]["repo"]) for kind in ("gguf", "mlx"))


@pytest.fixture
def entry(guide_path: Path) -> dict[str, Any]:
    """One that the built-in model fulfils."""
    weights = sum(prod(tensor.shape) for tensor in read_header(guide_path).tensors.values())
    return {
        "name": "x", "title": "X", "description": "For x.", "license": "MIT", "context": 2048, "languages": ["en"],
        "tools": False, "thinking": False, "parameters": weights, "gguf": {"repo": "me/x", "quantization": "Q4_K_M"},
        "mlx": {"repo": "me/y"},
    }  # fmt: skip


def test_an_entry_that_holds_is_found_to_hold(
    server: HubServer, hub: Hub, guide_path: Path, entry: dict[str, Any]
) -> None:
    server.repo("me/x", {"x-Q4_K_M.gguf": guide_path}, tags=("license:mit",))
    server.repo("me/y", {"config.json": b"{}", "model.safetensors": b"x"}, tags=("mlx",))
    assert check(hub, "x", entry) == []


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"context": 8192}, "its context is 2048"), ({"parameters": 7_000_000}, "weights, not 7,000,000"),
        ({"license": "Apache-2.0"}, "its licence is mit"), ({"tools": True}, "knows no tools"),
        ({"gguf": {"repo": "me/x", "quantization": "Q8_0"}}, "has no Q8_0"), ({"mlx": {"repo": "me/x"}}, "no folder"),
        ({"gguf": {"repo": "me/none", "quantization": "Q8_0"}}, "no repository me/none"),
        ({"mlx": {"repo": "me/none"}}, "no repository me/none"), ({"languages": "en"}, "languages is missing"),
        ({"name": "z"}, "not that of its file"),
    ],
)  # fmt: skip
def test_an_entry_that_rots_is_noticed(
    server: HubServer, hub: Hub, guide_path: Path, entry: dict[str, Any], change: dict[str, Any], problem: str
) -> None:
    server.repo("me/x", {"x-Q4_K_M.gguf": guide_path}, tags=("license:mit",))
    server.repo("me/y", {"config.json": b"{}", "model.safetensors": b"x"}, tags=("mlx",))
    (found,) = check(hub, "x", entry | change)
    assert problem in found
