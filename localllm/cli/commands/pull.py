"""`localllm pull`: fetch a model; without a name, what the catalog has."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from localllm.cli import options
from localllm.cli.output import Events, cancellable, human_size, peak_rss_mb, print_json, say
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.pull import Offered, Pulled, PullEvent

EPILOG = """MODEL is a name of the catalog (qwen3-0.6b), or on the hub owner/repo, owner/repo:Q4_K_M, a file as
owner/repo/file.gguf, the address of one of them, or a repository for MLX. Without a quantization the best that fits is
taken. What breaks off goes on where it was; nothing gets a name before its hash is that of the hub. HF_HOME,
HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to huggingface_hub, whose cache is used."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("reference", nargs="?", metavar="MODEL", help="what to fetch (default: list the catalog)")
    parser.add_argument("--revision", default="", metavar="R", help="branch, tag or commit (default: main)")
    parser.add_argument("--mlx", action="store_true", help="the folder for MLX instead of a GGUF")
    parser.add_argument("--ctx", type=int, metavar="N", help="tokens of context that have to fit (default: up to 4096)")
    parser.add_argument("--memory", type=float, metavar="GB", help="of a machine (default: what is available here)")
    parser.add_argument("--dry-run", action="store_true", help="only show what there is and what would be fetched")
    parser.add_argument("--force", action="store_true", help="also what does not fit this machine")
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    if args.memory is not None and not args.memory > 0:
        raise UsageError(f"--memory must be more than 0, not {args.memory}.")
    setup = options.setup(args)
    if args.reference is None:
        return _catalog(args.json)
    from localllm.cli.pull_view import PullView
    from localllm.tasks.pull import Offered, Pulled, PullRequest, pull

    request = PullRequest(
        args.reference, args.revision, args.mlx, args.ctx, None if args.memory is None else int(args.memory * 1e9),
        args.force, args.dry_run,
    )  # fmt: skip
    events = Events(args.json)
    with cancellable() as cancel, PullView(quiet=args.json) as view:
        for event in pull(setup.registry, request, cancel):
            view.draw(event)
            _report(events, event, args.dry_run)
            if isinstance(event, Pulled) and not args.json:
                _print(event)
            if isinstance(event, Offered) and args.dry_run and not args.json:
                what = "mlx" if event.offer.named.mlx else event.offer.taken.variant.quantization
                print(f"{event.offer.repository.repo}:{what}")
    return 0


def _report(events: Events, event: PullEvent, dry_run: bool) -> None:
    """The event as a line of JSON."""
    kind = type(event).__name__
    if kind == "Offered":
        facts = _offer(event)  # type: ignore[arg-type]
        events("done" if dry_run else "started", **facts)
    elif kind == "Pulled":
        events("done", **_totals(event))  # type: ignore[arg-type]
    elif kind in ("Noted", "Retrying", "Damaged", "Waiting"):
        events("warning", kind=kind.lower(), **asdict(event))
    elif kind == "Fetched":
        events("item", **asdict(event))
    else:
        events("progress", kind=kind.lower(), **asdict(event))


def _offer(event: Offered) -> dict[str, Any]:
    offer = event.offer
    return {
        "repo": offer.repository.repo, "revision": offer.repository.revision, "commit": offer.repository.commit,
        "license": offer.repository.license, "gated": offer.repository.gated, "memory": offer.memory,
        "ctx": offer.n_ctx, "choices": offer.rows(), "taken": offer.taken.variant.quantization,
        "bytes": offer.taken.variant.size, "to_fetch": event.to_fetch, "free": event.free,
    }  # fmt: skip


def _totals(event: Pulled) -> dict[str, Any]:
    return {
        "name": event.model.name, "path": str(event.model.path), "repo": event.repo, "commit": event.commit,
        "bytes": event.bytes, "received": event.received, "kept": event.kept, "checked": event.checked,
        "seconds": round(event.seconds, 3), "peak_rss_mb": peak_rss_mb(),
    }  # fmt: skip


def _print(event: Pulled) -> None:
    from localllm.sanitize import sanitize_line

    print(sanitize_line(f"{event.model.name}: {event.model.path}"))
    speed = f" at {human_size(event.received / event.seconds)}/s" if event.received and event.seconds > 0 else ""
    fetched = f"{human_size(event.received)} fetched{speed}" if event.received else "nothing had to be fetched"
    kept = f", {human_size(event.kept)} were there from before" if event.kept else ""
    say(f"{human_size(event.bytes)} verified; {fetched}{kept}.")
    say(f"Try it: localllm chat {event.model.name}")
    if event.model.path.is_dir():
        say("As a base for fine-tuning: localllm finetune DATA --model GGUF --mlx FOLDER")


def _catalog(as_json: bool) -> int:
    from localllm.sanitize import sanitize_line
    from localllm.store.catalog import cards

    found = {name: card for name, card in cards().items() if "file" not in card}
    by_size = sorted(found.items(), key=lambda pair: pair[1].get("parameters", 0))
    if as_json:
        print_json({"models": [{"name": name, **card} for name, card in by_size]})
        return 0
    print(f"{'MODEL':22} {'WEIGHTS':>8}  {'LICENCE':18} WHAT FOR")
    for name, card in by_size:
        weights = f"{card.get('parameters', 0) / 1e9:.2f} B"
        line = sanitize_line(str(card.get("description", "")))
        print(f"{sanitize_line(name):22} {weights:>8}  {sanitize_line(str(card.get('license', '?'))):18} {line}")
    say("Fetch one: localllm pull MODEL; others are owner/repo on the hub.")
    return 0
