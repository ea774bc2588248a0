"""Models, offers and downloads that are scripted, for driving the models screen without a hub or a large model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from localllm.errors import LocalLLMError
from localllm.hub.events import Fetched, Progress
from localllm.hub.listing import RemoteFile, Repository
from localllm.hub.reference import Reference
from localllm.hub.variants import Variant
from localllm.paths import Home
from localllm.store import catalog
from localllm.store.registry import Registry
from localllm.tasks.browsing import Listed, from_catalog, verdict
from localllm.tasks.pull import Offered, Pulled, PullRequest
from localllm.tasks.remote import Choice, Named, Offer
from localllm.tui.screens.models import ModelsScreen
from localllm.tui.widgets.modeltable import ModelTable
from localllm.tui.work.job import Work
from localllm.tui.work.models import Models
from localllm.types import ModelRef
from tests.tui.work_support import Script, ScriptedJobs, open_screen, play, when

MEMORY = 8_000_000_000
EVIL = "bad\x1b]52;c;aGk=\x07\u202ename"


def _here(name: str, whose: str, size: int, needs: int, **more: Any) -> Listed:
    facts = {"license": "Apache-2.0", "languages": ["en", "de"], "tools": True, "thinking": False, "template": True}
    said = {"facts": facts, "path": Path(f"/home/me/models/{name}.gguf"), **more}
    return Listed(
        name, "here", whose, size, "Q4_K (with Q8_0)", 32768, needs, 4096, verdict(needs, MEMORY), **said,
    )  # fmt: skip


ROWS = [
    _here("guide", "built-in", 4_400_000, 88_000_000, adapters=("cats", "tickets")),
    _here("other", "yours", 2_400_000_000, 3_300_000_000),
    _here("qwen3-8b:Q8_0", "pulled", 8_700_000_000, 9_600_000_000, repo="Qwen/Qwen3-8B-GGUF"),
    _here("ollama:phi4-mini:3.8b", "Ollama", 6_500_000_000, 7_500_000_000, owner="Ollama"),
    replace(_here(EVIL, "folder", 4000, 4000), problem="it is no GGUF", verdict="", bytes=None, context=None),
]


def rows(tmp_path: Path) -> list[Listed]:
    """Five models that are here, and the catalog, on a machine with 8 GB."""
    return ROWS + from_catalog(Registry(Home(tmp_path)), MEMORY)


class ScriptedLibrary(Models):
    """What it lists and finds is given; each download takes the next script."""

    def __init__(self, jobs: ScriptedJobs, listed: list[Listed], *scripts: Script) -> None:
        super().__init__(jobs.registry, None, lambda job: jobs._ended(job))
        self.listed, self.scripts = listed, list(scripts)
        self.found: Offer | LocalLLMError = offer()
        self.asked: list[str] = []
        self.requests: list[PullRequest] = []
        self.number = 1

    def rows(self) -> Iterator[list[Listed]]:
        return iter([self.listed[:2], self.listed[2:]])

    def memory(self) -> int:
        return MEMORY

    def stamp(self) -> int:
        return self.number

    def look_up(self, reference: str, cancel: threading.Event, *, mlx: bool = False) -> Offer:
        self.asked.append(reference)
        if isinstance(self.found, LocalLLMError):
            raise self.found
        return self.found

    def hashed(self, path: Path) -> str:
        return "24284f89b08cd61093af7e63ba237afd94c8bb4d780c8fb360535b8eb2570fb6"

    def _fetching(self, request: PullRequest) -> Work:
        self.requests.append(request)
        script = self.scripts.pop(0)
        return lambda cancel: play(script, cancel)


def scripted_jobs(tmp_path: Path, *scripts: Script) -> tuple[ScriptedJobs, ScriptedLibrary]:
    jobs = ScriptedJobs(tmp_path)
    jobs.library = library = ScriptedLibrary(jobs, rows(tmp_path), *scripts)
    return jobs, library


def offer(name: str = "qwen3-0.6b", repo: str = "Qwen/Qwen3-0.6B-GGUF") -> Offer:
    """Three quantizations: one fits, one is tight, one is too big."""
    sizes = {"Q4_K_M": 484_000_000, "Q8_0": 7_000_000_000, "F16": 9_000_000_000}
    variants = [Variant(q, (RemoteFile(f"m-{q}.gguf", size, "0" * 64),)) for q, size in sizes.items()]
    needs = [size + 500_000_000 for size in sizes.values()]
    choices = tuple(Choice(v, n, verdict(n, MEMORY) == "fits") for v, n in zip(variants, needs, strict=True))
    repository = Repository(repo, "main", "c" * 40, tuple(v.files[0] for v in variants), license="apache-2.0")
    named = Named(Reference(repo), name, catalog.card(name) or {})
    return Offer(named, repository, choices, choices[0], MEMORY, 4096)


def beginning() -> list[Any]:
    """A download of which a quarter has come."""
    return [Offered(offer(), 484_000_000, 10**11), progress(0.25)]


def progress(share: float) -> Progress:
    done, total = int(484_000_000 * share), 484_000_000
    return Progress("m-Q4_K_M.gguf", done, total, done, total, 12_300_000.0, (1 - share) * 39.4)


def ending(name: str = "qwen3-0.6b:Q4_K_M") -> list[Any]:
    size, path = 484_000_000, Path("/cache/m-Q4_K_M.gguf")
    model = ModelRef(name, path, "hub")
    return [Fetched("m-Q4_K_M.gguf", path, size, size, 0), Pulled(model, "Qwen/x", "c" * 40, size, size, 0, 39.4)]


async def open_models(pilot: Pilot[Any], rows: int = 6) -> ModelsScreen:
    """Press F9, and wait until so many rows are listed."""
    screen = await open_screen(pilot, "f9")
    assert isinstance(screen, ModelsScreen)
    await when(pilot, lambda: len(screen.all) >= rows and screen._stamp is not None)
    return screen


async def search(pilot: Pilot[Any], text: str) -> ModelTable:
    """Type a search in place of another, and go into the rows."""
    await pilot.press("slash")
    pilot.app.screen.query_one("#search", Input).value = text
    await pilot.press("down")
    await pilot.pause()
    table: ModelTable = pilot.app.screen.query_one(ModelTable)
    return table


def names(screen: ModelsScreen) -> list[str]:
    return [row.name for row in screen.query_one(ModelTable).rows_shown]
