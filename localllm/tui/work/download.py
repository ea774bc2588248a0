"""A download as the app holds it: each file, all of them, how fast, and what went wrong on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localllm.tui.work.job import Job, Work

if TYPE_CHECKING:
    from localllm.hub.events import Checking, Damaged, Fetched, Progress, Retrying, Waiting
    from localllm.tasks.pull import Noted, Offered, Pulled, PullRequest


class DownloadJob(Job):
    """Folds the events of `tasks.pull`."""

    def __init__(self, request: PullRequest, work: Work) -> None:
        super().__init__(request.reference, work)
        self.request = request
        self.doing = "asking the hub …"
        self.files: dict[str, tuple[int, int]] = {}
        """Of each file: bytes that are here, and all."""
        self.current = ""
        self.count = 0
        self.done = self.total = 0
        """Bytes of all files."""
        self.bytes_per_second = 0.0
        self.left: float | None = None
        """Seconds."""
        self.trouble = ""
        """What holds it up just now."""
        self.model = ""
        """The name by which it can be used, once it is ready."""
        self.checked = True

    @property
    def number(self) -> int:
        """Of the current file, from 1."""
        return list(self.files).index(self.current) + 1 if self.current in self.files else 0

    def take(self, event: Any) -> None:
        getattr(self, f"_{type(event).__name__.lower()}")(event)

    def _offered(self, event: Offered) -> None:
        variant = event.offer.taken.variant
        self.count, self.total = len(variant.files), variant.size
        self.done = variant.size - event.to_fetch

    def _noted(self, event: Noted) -> None:
        self.note(event.message)

    def _waiting(self, event: Waiting) -> None:
        self.trouble = f"{event.path}: another program is fetching it; waiting."

    def _checking(self, event: Checking) -> None:
        self.doing, self.trouble = "checking what is here …", ""
        self._file(event.path, event.done, event.total)

    def _retrying(self, event: Retrying) -> None:
        self.trouble = f"{event.reason}; again in {event.seconds:.0f} s."

    def _damaged(self, event: Damaged) -> None:
        self.note(f"{event.path}: what was in the cache is damaged, so it is fetched again.")

    def _progress(self, event: Progress) -> None:
        self.doing, self.trouble = "fetching", ""
        self._file(event.path, event.done, event.total)
        self.done, self.total = event.all_done, event.all_total
        self.bytes_per_second, self.left = event.bytes_per_second, event.seconds_left

    def _fetched(self, event: Fetched) -> None:
        self._file(event.path, event.size, event.size)
        self.trouble = ""

    def _pulled(self, event: Pulled) -> None:
        self.model, self.checked = event.model.name, event.checked
        self.done = self.total = event.bytes

    def _file(self, path: str, done: int, total: int) -> None:
        self.current = path
        self.files = {**self.files, path: (done, total)}
