"""`localllm chat`: the terminal app."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import say
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.types import ModelRef, Sampling

CHAT_DEFAULTS = {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="MODEL", help="name or path of the model (same as --model)")
    options.add_model(parser)
    parser.add_argument("-s", "--system", metavar="TEXT", help="a system prompt")
    parser.add_argument("--template", metavar="NAME", help="chat template for a file without one")
    options.add_force(parser)
    parser.add_argument(
        "--handbook",
        action=argparse.BooleanOptionalAction,
        help="look questions up in the handbook first (default: with the built-in model, without an adapter)",
    )
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("Chat needs a terminal.", 'For one answer use `localllm ask "..."`.')
    if args.name and args.model and args.name != args.model:
        raise UsageError(f"Two models were named: {args.name} and {args.model}.", "Name one.")
    args.model = args.model or args.name
    setup = options.setup(args)
    # Wrong names are said here, in the terminal, rather than in an app that opens only to complain.
    model = setup.registry.model(setup.model)
    if setup.adapter:
        setup.registry.adapter(setup.adapter)
    sampling = _sampling(args, model)
    from localllm.tasks.chat import open_chat
    from localllm.tui.app import Work, run_chat

    opening = partial(
        open_chat,
        setup.registry,
        setup.model,
        setup.adapter,
        sampling=sampling,
        sampling_for=partial(_sampling, args),
        system=args.system,
        n_ctx=setup.n_ctx,
        n_threads=setup.n_threads,
        template=args.template,
        force=args.force,
        handbook=args.handbook,
    )
    work = Work(setup.registry, setup.n_ctx, setup.n_threads, say, args.force)
    return run_chat(opening, model=model.name, home=setup.registry.home, work=work)


def _sampling(args: argparse.Namespace, model: ModelRef) -> Sampling:
    """What a model is sampled with: what the person says, else its card, else what suits a chat.

    The built-in model only reads, and reads best by its likeliest words.
    """
    defaults = {} if model.source == "built-in" else CHAT_DEFAULTS
    sampling = options.sampling(args, **{**defaults, **model.sampling})
    return replace(sampling, stop=sampling.stop or model.stop)
