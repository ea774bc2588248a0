"""A command that `mlx.launch` started in several processes ends when the launcher does."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localllm.tune.ranks import Place

_LOOK = 0.5  # seconds between looks at who the parent is


def cancel_without_launcher(cancel: threading.Event, where: Place) -> None:
    """Set `cancel` when the process that started this one is gone, if it started several.

    A launcher that is ended by a signal does not pass it on; nobody would hear of what its processes go on to do.
    """
    if where.size > 1:
        threading.Thread(target=_watch, args=(cancel, os.getppid()), daemon=True).start()


def _watch(cancel: threading.Event, launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK)
    cancel.set()
