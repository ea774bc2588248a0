"""The options that send work elsewhere: to a server, or to the machines of a Ray cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.endpoint_client import Endpoint

_KEYS = ("LOCALLLM_API_KEY", "OPENAI_API_KEY")


def add(parser: argparse.ArgumentParser) -> Any:
    """The options, in a group of their own, which is returned."""
    group = parser.add_argument_group("a server instead of a model on this machine")
    group.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"send the requests to an OpenAI-compatible server; its key is read from {' or '.join(_KEYS)}",
    )
    group.add_argument("--endpoint-model", metavar="NAME", help="the model to ask it for (default: the one it has)")
    return group


def given(
    args: argparse.Namespace, local: Collection[str], *, parallel: int | None, timeout: float | None = None
) -> Endpoint | None:
    """The server of the command line, or None; `local` are the options that are for a model on this machine.

    Raises UsageError for options that do not go together.
    """
    if args.endpoint is None:
        alone = next((name for name in ("endpoint_model", "tokenizer") if getattr(args, name, None) is not None), None)
        if alone:
            raise UsageError(f"--{alone.replace('_', '-')} needs --endpoint.", "Name the server.")
        return None
    if other := next((name for name in local if getattr(args, name)), None):
        hint = "Use --endpoint-model." if other == "model" else "Leave it out; the server decides that."
        raise UsageError(f"--{other.replace('_', '-')} is for a model on this machine, not for --endpoint.", hint)
    from localllm.tasks.endpoint_client import Endpoint

    key = next((value for name in _KEYS if (value := os.environ.get(name, "").strip())), "")
    return Endpoint(args.endpoint, args.endpoint_model, key, parallel or 8, timeout or 600.0)


def add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster, the model on each machine (default: the cluster of this machine)",
    )
