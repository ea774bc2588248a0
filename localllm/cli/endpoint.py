"""The options that send work to a server instead of a model on this machine."""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.answer_endpoint import Endpoint

_LOCAL = ("model", "adapter", "ctx", "threads", "template")
_KEYS = ("LOCALLLM_API_KEY", "OPENAI_API_KEY")


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a server instead of a model on this machine")
    group.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"send the requests to an OpenAI-compatible server; its key is read from {' or '.join(_KEYS)}",
    )
    group.add_argument(
        "--endpoint-model", metavar="NAME", help="the model to ask it for (default: what a request says)"
    )
    group.add_argument("--timeout", type=float, metavar="S", help="seconds to wait for an answer (default: 600)")


def given(args: argparse.Namespace) -> Endpoint | None:
    """The server of the command line, or None. Raises UsageError for options that do not go together."""
    if args.endpoint is None:
        if alone := next((name for name in ("endpoint_model", "timeout") if getattr(args, name) is not None), None):
            raise UsageError(f"--{alone.replace('_', '-')} needs --endpoint.", "Name the server.")
        return None
    if other := next((name for name in _LOCAL if getattr(args, name, None) is not None), None):
        hint = "Use --endpoint-model." if other == "model" else "Leave it out; the server decides that."
        raise UsageError(f"--{other} is for a model on this machine, not for --endpoint.", hint)
    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError(f"--timeout must be above 0, not {args.timeout:g}.")
    from localllm.tasks.answer_endpoint import Endpoint

    key = next((value for name in _KEYS if (value := os.environ.get(name, "").strip())), "")
    return Endpoint(args.endpoint, args.endpoint_model, key, args.parallel or 8, args.timeout or 600.0)
