"""What a download tells as it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Waiting:
    """Another process fetches this very file; it is waited for."""

    path: str


@dataclass(frozen=True)
class Checking:
    """What is already on the disk is read and hashed."""

    path: str
    done: int
    total: int


@dataclass(frozen=True)
class Retrying:
    """Something failed that may pass; the next attempt comes after a pause."""

    path: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Damaged:
    """A blob in the cache was not what its name says; it is fetched again."""

    path: str


@dataclass(frozen=True)
class Progress:
    """How far the file and the whole have come. Bytes, bytes per second, seconds."""

    path: str
    done: int
    total: int
    all_done: int
    all_total: int
    bytes_per_second: float
    seconds_left: float | None
    """None while nothing can be said."""


@dataclass(frozen=True)
class Fetched:
    """A file is complete, verified and in its place."""

    path: str
    where: Path
    size: int
    received: int
    """Bytes that came over the network in this process."""
    kept: int
    """Bytes that an earlier one had left."""


HubEvent = Waiting | Checking | Retrying | Damaged | Progress | Fetched
