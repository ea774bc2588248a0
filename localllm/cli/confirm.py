"""Asking before something is deleted."""

from __future__ import annotations

import sys

from localllm.errors import CancelledError, UsageError


def confirm(question: str, *, yes: bool) -> None:
    """Go on only after a yes. Raises CancelledError for anything else, UsageError where nobody can be asked."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("Nothing was removed: nobody can be asked here.", "Add --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CancelledError("Nothing was removed.")
