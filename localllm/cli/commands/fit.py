"""`localllm fit`: how much memory a model would take, before it is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import human_size, print_json
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.estimate import Estimate

_POSITIVE = ("batch_size", "max_length", "rank", "memory")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name or path of a model, or as for `localllm pull`")
    parser.add_argument("--data", type=Path, metavar="FILE", help="take batches and lengths from these rows")
    parser.add_argument("--ctx", type=int, metavar="N", help="tokens of context (default: the model's, up to 4096)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows of a batch (default: 4, or by the data)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of the longest row (default: 512)")
    parser.add_argument("--rank", type=int, metavar="R", help="rank of the adapter (default: 16)")
    parser.add_argument("--grad-checkpoint", action="store_true", help="as of `localllm finetune`")
    parser.add_argument("--memory", type=float, metavar="GB", help="of a machine (default: what is available here)")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    for name in _POSITIVE:
        if (value := getattr(args, name)) is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, not {value}.")
    setup = options.setup(args)
    from localllm.tasks.estimate import estimate

    found = estimate(
        setup.registry,
        setup.model,
        data=args.data,
        n_ctx=setup.n_ctx,
        batch_size=args.batch_size,
        max_length=args.max_length,
        rank=args.rank or 16,
        grad_checkpoint=args.grad_checkpoint,
        memory=None if args.memory is None else int(args.memory * 1e9),
    )
    if args.json:
        print_json(_facts(found))
    else:
        _print(found)
    return 0


def _facts(found: Estimate) -> dict[str, object]:
    from dataclasses import asdict

    chat: dict[str, object] = {"ctx": found.n_ctx, "bytes": found.chat.total, "needed": found.chat.needed}
    chat |= {"fits": found.chat_fits, "would_fit": list(found.chat_instead) or None}
    facts: dict[str, object] = {
        "model": found.model, "memory": found.memory, "chat": chat | {"parts": found.chat.parts()},
    }  # fmt: skip
    if found.offer:
        facts["choices"] = found.offer.rows()
    if (fit := found.training) is None:
        return facts | {"training": None, "why": found.why}
    training = {
        "bytes": fit.footprint.total, "fits": fit.fits, "may_use": fit.available, "parts": fit.footprint.parts(),
        "settings": asdict(fit.settings), "would_fit": fit.changes() or None, "too_long": fit.too_long,
    }  # fmt: skip
    return facts | {"training": training}


def _print(found: Estimate) -> None:
    from localllm.sanitize import sanitize_line

    print(f"{sanitize_line(found.model)}: {human_size(found.memory)} of memory are available")
    if found.offer:
        from localllm.cli.pull_view import table

        print("\n".join(table(found.offer)))
    _parts(f"chat with {found.n_ctx} tokens of context", found.chat.total, found.chat.parts())
    if found.chat.copies >= found.chat.total // 100:
        print(f"  of which {human_size(found.chat.needed)} are needed: of weights that are copied, the file's can go")
    if not found.chat_fits:
        other = f" This would: {sanitize_line('; or '.join(found.chat_instead))}." if found.chat_instead else ""
        print(f"It does not fit: nine tenths of the memory may be used.{other}")
    if (fit := found.training) is None:
        print(f"training: {sanitize_line(found.why)}")
        return
    s = fit.settings
    _parts(f"training, {s.rows} x {s.length} tokens, rank {s.rank}", fit.footprint.total, fit.footprint.parts())
    if fit.fits:
        print(f"It fits: {human_size(fit.available)} may be used.")
    elif fit.suggestion is None:
        print(f"It does not fit: {human_size(fit.available)} may be used, and no smaller settings fit either.")
    else:
        rows = f"; {fit.too_long} rows are longer" if fit.too_long else ""
        print(f"It does not fit: {human_size(fit.available)} may be used. This would: {fit.as_options()}{rows}")


def _parts(title: str, total: int, parts: dict[str, int]) -> None:
    """A heading with the total, and the parts that are worth a line."""
    print(f"{title}: about {human_size(total)}")
    for name, size in parts.items():
        if size >= total // 100:
            print(f"  {name:12} {human_size(size):>9}")
