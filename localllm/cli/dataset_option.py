"""A dataset as a person names it, on the disk or on the hub; what is on the hub is fetched first, with a bar."""

from __future__ import annotations

import argparse
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli.output import Events
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.store.registry import Registry

HELP = "JSONL, JSON, CSV, Parquet, a dataset's folder, or owner/name of a dataset on the Hugging Face hub"


@dataclass(frozen=True)
class Rows:
    """Where rows are on this disk."""

    path: Path
    name: str
    """What something that is made of them may be called."""
    label: str = ""
    """Name and commit of what came from the hub."""


def add_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a dataset on the hub (default: main)")


class Datasets:
    """Turns names into paths, telling of what is fetched on standard error or as events."""

    def __init__(self, registry: Registry, *, quiet: bool = False, events: Events | None = None) -> None:
        self._registry, self._events = registry, events or Events(False)
        self._quiet = quiet or self._events.enabled

    def rows(self, text: str, revision: str | None = None, *, test: bool = False, cancel: threading.Event) -> Rows:
        """A path as it is, and a name of the hub as the folder of its files. Raises what fetching raises."""
        from localllm.tasks.datasets import LEARNED, DatasetHere, fetch_dataset, may_be_dataset

        if not may_be_dataset(text):
            if revision:
                raise UsageError(f"--revision is of a dataset on the hub, and {text} is a path.", "Leave it out.")
            return Rows(Path(text), Path(text).stem)
        from localllm.cli.pull_view import PullView

        splits = (*LEARNED, "test") if test else LEARNED
        with PullView(quiet=self._quiet) as view:
            for event in fetch_dataset(self._registry, text, revision or "", splits, cancel):
                view.draw(event)
                self._report(event)
                if isinstance(event, DatasetHere):
                    here = event
        return Rows(here.path, here.short, here.label)

    def path(self, text: str | None, *, test: bool = False, cancel: threading.Event) -> Path | None:
        """The same for an option that may be left out, the path alone."""
        return None if text is None else self.rows(text, test=test, cancel=cancel).path

    def _report(self, event: Any) -> None:
        kind = type(event).__name__
        if kind in ("Noted", "Retrying", "Damaged", "Waiting"):
            self._events("warning", kind=kind.lower(), **asdict(event))
        else:
            self._events("progress", phase=f"Dataset{kind.removeprefix('Dataset')}", **asdict(event))
