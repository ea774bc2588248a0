"""`localllm summarize`: whole documents, in batch."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import endpoint, options
from localllm.cli.output import cancellable, say
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.endpoint_client import Endpoint
    from localllm.tasks.opening import Opened
    from localllm.tasks.summary_ray import Machines
    from localllm.tasks.summary_writer import Writer

SOME_FAILED = 3
_LOCAL = ("model", "adapter", "threads", "fast", "chat_template", "ray", "force")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="documents, folders, patterns; - for stdin")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="a .jsonl, .md or .csv file; run again to go on")
    parser.add_argument("--format", choices=("jsonl", "md", "csv"), help="of the output (default: by its name)")
    options.add_model(parser)
    _add_wishes(parser.add_argument_group("the summary"))
    _add_work(parser.add_argument_group("the work"))
    options.add_force(parser)
    endpoint.add_ray(parser)
    group = endpoint.add(parser)
    group.add_argument(
        "--tokenizer",
        metavar="M",
        help="a model of this machine that splits text into tokens as the server's does, for a server that cannot "
        "count them (llama-server and vLLM can)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options.add_json(parser, "print events, one JSON object a line")
    options.add_sampling(parser)


def _add_wishes(group: Any) -> None:
    group.add_argument("--length", choices=("short", "medium", "long"), help="sentences, a paragraph, or several")
    group.add_argument("--style", choices=("paragraph", "bullets", "headline"), help="its form")
    group.add_argument("--focus", metavar="QUESTION", help="what it should tell about")
    group.add_argument("--language", metavar="L", help="what to write it in, such as German")
    group.add_argument("--template", type=Path, metavar="FILE", help="a prompt of your own, with {text} in it")


def _add_work(group: Any) -> None:
    strategies = ("auto", "single", "map-reduce", "refine")
    group.add_argument("--strategy", choices=strategies, default="auto", help="how long texts become one summary")
    group.add_argument("--part-tokens", type=int, metavar="N", help="tokens of text in a part (default: what fits)")
    group.add_argument("--overlap", type=int, default=0, metavar="N", help="tokens that a part repeats of the last one")
    group.add_argument("--field", metavar="NAME", help="the field of a table's rows that holds the text")
    group.add_argument("--slots", type=int, metavar="N", help="answers side by side (default: what memory allows)")
    group.add_argument("--fast", action="store_true", help="flash attention: answers depend more on what runs beside")
    group.add_argument("--timeout", type=float, metavar="S", help="give a document up after S seconds")
    group.add_argument("--retry-failed", action="store_true", help="try documents again that failed in an earlier run")
    group.add_argument("--redo", action="store_true", help="replace summaries made with other settings")
    group.add_argument("--chat-template", metavar="NAME", help="chat template for a file without one")


def run(args: argparse.Namespace) -> int:
    _check(args)
    from localllm.tasks.summary_prompts import Wish

    sampling = options.sampling(args)
    template = options.read_text(args.template) if args.template else None
    wish = Wish(args.length, args.style, args.focus, args.language, template, sampling.json_schema)
    from localllm.cli.summarize_view import SummarizeView
    from localllm.tasks.summarize import SummarizeRequest, summarize

    printing = None if args.out else args.format or "text"
    with cancellable() as cancel, ExitStack() as stack:
        writer, facts, machines = _writer(args, stack)
        request = SummarizeRequest(
            paths=tuple(args.paths), out=args.out, sampling=sampling, wish=wish, strategy=args.strategy,
            overlap=args.overlap, field=args.field, format=args.format, timeout=args.timeout,
            retry_failed=args.retry_failed, redo=args.redo, **facts,
        )  # fmt: skip
        view = stack.enter_context(SummarizeView(json=args.json, quiet=args.quiet, printing=printing))
        for event in summarize(request, writer, cancel, machines):
            view.draw(event)
    return SOME_FAILED if view.failed else 0


def _writer(args: argparse.Namespace, stack: ExitStack) -> tuple[Writer, dict[str, Any], Machines | None]:
    """Who writes the summaries, what SummarizeRequest is to know of it, and the machines that it is to be done on."""
    if server := endpoint.given(args, _LOCAL, parallel=args.slots):
        return *_served(args, server, stack), None
    from localllm.tasks.opening import open_model
    from localllm.tasks.summary_writer import EngineWriter

    setup = options.setup(args)
    how: dict[str, Any] = {
        "n_ctx": setup.n_ctx, "n_threads": setup.n_threads, "n_slots": args.slots, "template": args.chat_template,
        "exact": not args.fast, "force": args.force,
    }  # fmt: skip
    machines = _machines(args.ray, setup, how) if args.ray is not None else None
    here = how if machines is None else {**how, "n_slots": 1}  # the prompts are counted here and answered there
    opened = open_model(setup.registry, setup.model, setup.adapter, worker=True, **here)
    stack.callback(opened.engine.close)
    part_tokens = args.part_tokens or opened.model.chunk_tokens
    return EngineWriter(opened.engine), {"part_tokens": part_tokens, **_names(opened, setup)}, machines


def _machines(address: str, setup: options.Setup, how: dict[str, Any]) -> Machines:
    from localllm.tasks.answer_ray import elsewhere
    from localllm.tasks.ray_nodes import Cluster
    from localllm.tasks.summary_ray import Machines

    adapter = elsewhere(setup.adapter) if setup.adapter else None
    return Machines(Cluster(address), {"model": elsewhere(setup.model), "adapter": adapter, **how})


def _served(args: argparse.Namespace, server: Endpoint, stack: ExitStack) -> tuple[Writer, dict[str, Any]]:
    if args.grammar is not None:
        raise UsageError("--grammar is for a model on this machine, not for --endpoint.", "Use --schema.")
    from localllm.tasks.endpoint_client import Client
    from localllm.tasks.endpoint_served import introduce
    from localllm.tasks.summary_endpoint import EndpointWriter

    client = Client(server)
    stack.callback(client.close)
    served = introduce(client, args.ctx, _vocabulary(args, stack))
    if not args.quiet:
        say(f"{server.base} answers with {served.model}, in a context of {served.n_ctx} tokens.")
        if not served.counted_by:
            say("It counts no tokens: every byte is taken for one. Name a model with its vocabulary by --tokenizer.")
    facts = {"part_tokens": args.part_tokens, "model": served.model, "model_sha256": None, "endpoint": server.base}
    return EndpointWriter(client, served), facts


def _vocabulary(args: argparse.Namespace, stack: ExitStack) -> Any:
    if args.tokenizer is None:
        return None
    from localllm.tasks.opening import open_vocabulary

    name, engine = open_vocabulary(options.setup(args).registry, args.tokenizer)
    stack.callback(engine.close)
    return name, lambda text: len(engine.tokenize(text, add_special=False, parse_special=False))


def _check(args: argparse.Namespace) -> None:
    """What can be said before the model is loaded. Raises UsageError."""
    if args.out is not None and args.out.is_dir():
        raise UsageError(f"--out {args.out} is a folder.", "Name a file in it.")
    for option in ("part_tokens", "slots", "timeout"):
        value = getattr(args, option)
        if value is not None and not value > 0:
            raise UsageError(f"--{option.replace('_', '-')} must be above 0, not {value:g}.")
    if args.out is None and args.format == "csv" and args.json:
        raise UsageError("--json and --format csv exclude each other.", "Leave out one.")
    if sum(str(path) == "-" for path in args.paths) and sys.stdin.isatty():
        raise UsageError("- reads standard input, and nothing is piped into it.", "Pipe a text, or name a file.")


def _names(opened: Opened, setup: options.Setup) -> dict[str, Any]:
    adapter = opened.adapter
    return {
        "model": opened.model.name,
        "model_sha256": setup.registry.sha256(opened.model.path),
        "adapter": adapter.name if adapter else None,
        "adapter_sha256": setup.registry.sha256(adapter.path) if adapter else None,
        "adapter_scale": adapter.scale if adapter else 1.0,
    }
