"""Options that mean the same everywhere, and how they become settings."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.store.registry import Registry
    from localllm.types import Sampling

_SAMPLING = (  # option, type, help; the destinations are the fields of types.Sampling
    ("--temperature", float, "0 takes the likeliest token; higher is more varied"),
    ("--top-k", int, "keep only the K likeliest tokens; 0 keeps all"),
    ("--top-p", float, "keep the likeliest tokens whose probabilities sum to P"),
    ("--min-p", float, "drop tokens less likely than this fraction of the likeliest"),
    ("--repeat-penalty", float, "divide the logits of recent tokens by this; 1 is off"),
    ("--presence-penalty", float, "subtract this once from every recent token's logit"),
    ("--frequency-penalty", float, "subtract this from a recent token's logit for each time it occurred"),
    ("--seed", int, "same seed, same answer"),
)


@dataclass(frozen=True)
class Setup:
    """What every command that loads a model needs, resolved from settings and flags."""

    registry: Registry
    model: str
    adapter: str | None
    n_ctx: int | None
    n_threads: int | None


def add_model(parser: argparse.ArgumentParser, *, adapter: bool = True) -> None:
    parser.add_argument("-m", "--model", metavar="M", help="name or path of the model (default: the built-in one)")
    if adapter:
        parser.add_argument("-a", "--adapter", metavar="A", help="name or path of an adapter to attach")
    parser.add_argument("--ctx", type=int, metavar="N", help="tokens of context (default: the model's, up to 4096)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: the physical cores; fewer for a tiny model)"
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    for option, kind, line in _SAMPLING:
        group.add_argument(option, type=kind, metavar=option.split("-")[-1][0].upper(), help=line)
    group.add_argument("--max-tokens", type=int, metavar="N", help="stop after N new tokens")
    group.add_argument("--stop", action="append", metavar="TEXT", help="stop before this text (may be repeated)")
    group.add_argument(
        "--logit-bias", action="append", metavar="TOKEN=BIAS", help="add BIAS to the logit of token id TOKEN"
    )
    group.add_argument("--grammar", type=Path, metavar="FILE", help="a GBNF grammar that the answer must match")
    group.add_argument("--schema", type=Path, metavar="FILE", help="a JSON schema that the answer must match")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="also a model that memory does not hold")


def add_json(parser: argparse.ArgumentParser, what: str = "print one JSON object") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def setup(args: argparse.Namespace) -> Setup:
    """Settings, then flags. Raises UsageError."""
    from localllm.config import load_settings
    from localllm.paths import Home
    from localllm.store.registry import Registry

    home = Home.locate()
    settings = load_settings(home)
    for option in ("ctx", "threads"):
        if (value := getattr(args, option, None)) is not None and value < 1:
            raise UsageError(f"--{option} must be 1 or more, not {value}.")
    return Setup(
        registry=Registry(home),
        model=getattr(args, "model", None) or settings.model,
        adapter=getattr(args, "adapter", None) or settings.adapter or None,
        n_ctx=getattr(args, "ctx", None) or settings.ctx or None,
        n_threads=getattr(args, "threads", None) or settings.threads or None,
    )


def sampling(args: argparse.Namespace, **defaults: float | int | None) -> Sampling:
    """Defaults of the command, then flags. Raises UsageError for a file that cannot be read or a malformed bias."""
    from localllm.types import Sampling

    values: dict[str, object] = dict(defaults)
    for option, _, _ in (*_SAMPLING, ("--max-tokens", int, "")):
        name = option[2:].replace("-", "_")
        if (given := getattr(args, name, None)) is not None:
            values[name] = given
    values["stop"] = tuple(getattr(args, "stop", None) or ())
    values["logit_bias"] = tuple(_bias(text) for text in getattr(args, "logit_bias", None) or ())
    values["grammar"] = read_text(args.grammar) if getattr(args, "grammar", None) else None
    values["json_schema"] = read_text(args.schema) if getattr(args, "schema", None) else None
    return Sampling(**values)  # type: ignore[arg-type]


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise UsageError(f"--logit-bias {text} is not TOKEN=BIAS.", "For example 42=-100 or 42=-inf.") from None


def read_text(path: Path) -> str:
    """A file that an option names. Raises UsageError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path} cannot be read ({e}).", "Check the path.") from e
