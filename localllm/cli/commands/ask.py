"""`localllm ask`: one answer on standard output."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from localllm.cli import options
from localllm.cli.output import cancellable, print_json, say
from localllm.errors import CancelledError, UsageError

if TYPE_CHECKING:
    from localllm.engine.base import Event, Finished
    from localllm.tasks.looking_up import LookedUp
    from localllm.tasks.opening import Opened
    from localllm.tasks.reading import Sourced
    from localllm.types import Sampling


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the question; piped text goes before it")
    options.add_model(parser)
    parser.add_argument("-s", "--system", metavar="TEXT", help="a system prompt")
    parser.add_argument("--template", metavar="NAME", help="chat template for a file without one")
    parser.add_argument("--completion", action="store_true", help="continue the text instead of answering it")
    parser.add_argument(
        "--handbook",
        action=argparse.BooleanOptionalAction,
        help="look the question up in the handbook first (default: with the built-in model, without an adapter)",
    )
    options.add_force(parser)
    options.add_json(parser, "print one JSON object: text, token counts, timings, finish reason")
    parser.add_argument("--raw", action="store_true", help="do not clean control characters (not on a terminal)")
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    prompt = _prompt(args.prompt)
    if args.raw and sys.stdout.isatty():
        raise UsageError("--raw could let a model control your terminal.", "Redirect the output to a file or a pipe.")
    sampling = options.sampling(args)
    setup = options.setup(args)
    from localllm.tasks.opening import open_model

    looked = _look_up(args, setup, prompt)
    opened = open_model(
        setup.registry,
        setup.model,
        setup.adapter,
        n_ctx=setup.n_ctx,
        n_threads=setup.n_threads,
        template=args.template,
        force=args.force,
    )
    args.system = opened.model.system or None if args.system is None else args.system
    sampling = replace(sampling, stop=sampling.stop or opened.model.stop)
    printer = _Printer(quiet=args.json, raw=args.raw)
    if looked and looked.instead:
        return _decline(args, opened, looked, sampling, printer)
    finished, looked, source = _answer(args, opened, prompt, looked, sampling, printer)
    if args.json:
        used = [entry.id for entry in looked.entries] if looked else []
        print_json(_report(opened, printer.text, finished) | {"handbook": used, "source": source})
    _narrate(opened.engine.info.n_ctx, sampling.max_tokens, finished)
    opened.engine.close()
    return 0


def _look_up(args: argparse.Namespace, setup: options.Setup, prompt: str) -> LookedUp | None:
    """What the handbook has for the question; None where it is not to be asked."""
    if args.completion or args.grammar or args.schema:
        return None
    from localllm.tasks.looking_up import consult

    return consult(args.handbook, setup.registry.model(setup.model), prompt, adapter=bool(setup.adapter))


def _decline(args: argparse.Namespace, opened: Opened, looked: LookedUp, sampling: Sampling, printer: _Printer) -> int:
    """Say that the handbook has no answer, without asking the model; wrong options are refused all the same."""
    from localllm.engine.sampling import validate

    validate(sampling)
    printer.write(looked.instead)
    printer.end()
    if args.json:
        facts = {"model": opened.model.name, "adapter": opened.adapter.name if opened.adapter else None}
        print_json({"text": printer.text, "finish_reason": "declined", **facts, "handbook": [], "source": ""})
    opened.engine.close()
    return 0


def _answer(
    args: argparse.Namespace,
    opened: Opened,
    prompt: str,
    looked: LookedUp | None,
    sampling: Sampling,
    printer: _Printer,
) -> tuple[Finished, LookedUp | None, str]:
    """Stream the answer; how it ended, what the model has read, and where the answer is from."""
    from localllm.engine.base import Finished, TextDelta
    from localllm.tasks.looking_up import fitted
    from localllm.tasks.reading import Sourced

    if looked:
        looked = fitted(opened.engine, looked)
        say(looked.source)
    finished: Finished | None = None
    source = looked.source if looked else ""
    with cancellable() as cancel:
        for event in _events(args, opened, prompt, looked, sampling, cancel):
            if isinstance(event, TextDelta):
                printer.write(event.text)
            elif isinstance(event, Finished):
                finished = event
            elif isinstance(event, Sourced):
                source = event.text
    assert finished is not None
    printer.end()
    if looked and source != looked.source:
        say(source)
    return finished, looked, source


def _events(
    args: argparse.Namespace,
    opened: Opened,
    prompt: str,
    looked: LookedUp | None,
    sampling: Sampling,
    cancel: threading.Event,
) -> Iterator[Event | Sourced]:
    from localllm.tasks.ask import ask
    from localllm.tasks.reading import answer

    def asked(question: str, cancel: threading.Event) -> Iterator[Event]:
        return ask(opened.engine, question, sampling, system=args.system, continue_text=args.completion, cancel=cancel)

    return answer(looked, partial(asked, looked.prompt), cancel) if looked else asked(prompt, cancel)


def _prompt(words: list[str]) -> str:
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            piped = sys.stdin.read()
        except UnicodeDecodeError as e:
            raise UsageError(f"Standard input is not UTF-8 text (byte {e.start}).", "Convert it first.") from e
    prompt = "\n\n".join(part for part in (piped.rstrip("\n"), " ".join(words)) if part.strip())
    if not prompt:
        raise UsageError("There is no question.", 'Write it after the command: localllm ask "...".')
    return prompt


class _Printer:
    """Streams text to standard output, cleaned unless raw, and keeps it."""

    def __init__(self, *, quiet: bool, raw: bool) -> None:
        from localllm.sanitize import Sanitizer

        self._quiet = quiet
        self._sanitizer = None if raw else Sanitizer()
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def write(self, text: str) -> None:
        self._pieces.append(text)
        if not self._quiet:
            self._put(self._sanitizer.feed(text) if self._sanitizer else text)

    def end(self) -> None:
        if not self._quiet:
            self._put((self._sanitizer.flush() if self._sanitizer else "") + "\n")

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _report(opened: Any, text: str, finished: Any) -> dict[str, Any]:
    usage = finished.usage
    return {
        "text": text,
        "finish_reason": finished.reason,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "load_seconds": round(usage.load_seconds, 4),
        "time_to_first_token": round(usage.prefill_seconds, 4),
        "seconds": round(usage.prefill_seconds + usage.decode_seconds, 4),
        "tokens_per_second": round(usage.tokens_per_second, 2),
        "model": opened.model.name,
        "adapter": opened.adapter.name if opened.adapter else None,
    }


def _narrate(n_ctx: int, max_tokens: int | None, finished: Any) -> None:
    if finished.reason == "cancelled":
        raise CancelledError("Stopped.")
    if finished.reason == "length" and finished.usage.output_tokens != max_tokens:
        say(f"localllm: the answer was cut: the context of {n_ctx} tokens is full. Raise it with --ctx N.")
