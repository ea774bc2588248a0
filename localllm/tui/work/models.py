"""The models of this machine and of the hub as the app holds them; at most one download at a time. Nothing draws."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.errors import UsageError
from localllm.tui.work.download import DownloadJob
from localllm.tui.work.job import Job, Work

if TYPE_CHECKING:
    from localllm.hub.http import Limits
    from localllm.hub.surroundings import Surroundings
    from localllm.store.registry import Registry
    from localllm.tasks.browsing import Listed
    from localllm.tasks.pull import PullRequest
    from localllm.tasks.remote import Offer
    from localllm.tasks.removing import Removal


class Models:
    """Lists, looks up, downloads and removes. The imports are late: the chat opens without them."""

    def __init__(
        self,
        registry: Registry,
        n_ctx: int | None,
        ended: Callable[[Job], object],
        here: Surroundings | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`ended` is called, from its thread, when a download is over; `here` and `limits` are those of the hub."""
        self.registry, self.n_ctx = registry, n_ctx
        self.download: DownloadJob | None = None
        self._ended, self._here, self._limits = ended, here, limits

    def rows(self) -> Iterator[list[Listed]]:
        """Batches of rows. Raises LocalLLMError."""
        from localllm.tasks.browsing import browse

        return browse(self.registry, self.n_ctx)

    def memory(self) -> int | None:
        """Bytes that are free."""
        from localllm.tasks.browsing import free_memory

        return free_memory()

    def stamp(self) -> int:
        """Another number once something came or went."""
        from localllm.tasks.browsing import stamp

        return stamp(self.registry)

    def look_up(self, reference: str, cancel: threading.Event, *, mlx: bool = False) -> Offer:
        """What the hub has under that name; takes a moment. Raises LocalLLMError."""
        from localllm.tasks.fetching import look_up

        return look_up(reference, self.n_ctx, mlx, cancel, self._here, self._limits)

    # Downloads

    def fetch(self, request: PullRequest) -> DownloadJob:
        """Begin a download, or go on with one. Raises UsageError while another is going on."""
        if self.download is not None and not self.download.over:
            raise UsageError(f"{self.download.name} is being downloaded.", "Stop it first, or wait until it is here.")
        self.download = DownloadJob(request, self._fetching(request))
        self.download.start(self._ended)
        return self.download

    def left(self) -> PullRequest | None:
        """A download that did not come to its end."""
        from localllm.tasks.fetching import left

        return left(self.registry.home)

    def forget_left(self) -> None:
        """Do not offer to go on with it."""
        from localllm.tasks.fetching import forget

        forget(self.registry.home)

    # Taking away

    def removal(self, name: str, *, files: bool = False) -> Removal:
        """What deleting a model means. Raises ModelError, and UsageError for what is not ours."""
        from localllm.tasks.removing import plan_removal

        return plan_removal(self.registry, name, files=files)

    def remove(self, removal: Removal) -> None:
        """Do it. Raises StorageError."""
        from localllm.tasks.removing import remove

        remove(removal)

    def add_folder(self, folder: Path) -> Path:
        """Look for models there too. Raises UsageError and StorageError."""
        from localllm.store.foreign.added import add_folder

        return add_folder(self.registry.home.folders_file, folder)

    def folder_of(self, path: Path) -> Path | None:
        """The folder that was added and holds this model."""
        from localllm.store.foreign.added import added_folders

        known = added_folders(self.registry.home.folders_file)
        return next((folder for folder in known if path.resolve().is_relative_to(folder.resolve())), None)

    def forget_folder(self, folder: Path) -> None:
        """Look there no longer; nothing in it is touched. Raises UsageError and StorageError."""
        from localllm.store.foreign.added import forget_folder

        forget_folder(self.registry.home.folders_file, folder)

    # Hashes

    def hashed(self, path: Path) -> str:
        """The SHA-256 of a model's file as far as it is known; nothing is read."""
        return self.registry.known_sha256(path)

    def hash(self, path: Path) -> str:
        """The same, computed if it has to be. Raises StorageError."""
        return self.registry.sha256(path)

    def _fetching(self, request: PullRequest) -> Work:
        from localllm.tasks.fetching import fetch

        return lambda cancel: fetch(self.registry, request, cancel, self._here, self._limits)
