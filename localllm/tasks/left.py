"""What was asked for and did not come to its end: one file a kind of work in the program's home, to offer going on."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from localllm.engine import wire
from localllm.errors import LocalLLMError
from localllm.paths import Home
from localllm.store.files import write_atomically

T = TypeVar("T")


@dataclass(frozen=True)
class Left(Generic[T]):
    """Keeps a request, a dataclass that `wire` encodes, under a name."""

    name: str
    kind: Hashable
    """The class of the request."""

    def remember(self, home: Home, request: T) -> None:
        """Until it is forgotten. Raises OSError."""
        write_atomically(home.root / self.name, wire.encode(request))

    def of(self, home: Home) -> T | None:
        """What was left; nothing where that cannot be read any more."""
        try:
            request: T = wire.decode((home.root / self.name).read_bytes(), self.kind)
        except (OSError, ValueError, LocalLLMError):
            return None
        return request

    def forget(self, home: Home) -> None:
        with suppress(OSError):
            (home.root / self.name).unlink(missing_ok=True)
