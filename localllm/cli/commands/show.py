"""`localllm show`: everything about one model or adapter."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from localllm.cli import options
from localllm.cli.output import human_size, print_json
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.tensors import TensorRow, TensorTotal


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name or path of a model or adapter")
    parser.add_argument("--tensors", action="store_true", help="every tensor: what it becomes in MLX, and its error")
    parser.add_argument(
        "--other",
        choices=("16bit", "8bit"),
        help="with --tensors: what types become that are not MLX's affine groups (default: 16bit)",
    )
    options.add_json(parser, "print one JSON object; with --tensors one for each tensor and one for the total")


def run(args: argparse.Namespace) -> int:
    from localllm.tasks.inventory import show

    if args.tensors:
        return _tensors(args)
    if args.other:
        raise UsageError("--other says what tensors become.", "Add --tensors.")

    facts = show(options.setup(args).registry, args.name)
    if args.json:
        print_json(facts)
    else:
        _print("", facts)
    return 0


def _tensors(args: argparse.Namespace) -> int:
    """A line for each tensor as soon as it is measured, and one for all of them."""
    from dataclasses import asdict

    from localllm.tasks.tensors import TensorRow, tensors

    if not args.json:
        print(f"{'TENSOR':28} {'SHAPE':>16}  {'TYPE':6} {'BECOMES':19} {'IN FILE':>9} {'IN MLX':>9} MAX ERROR")
    for row in tensors(options.setup(args).registry, args.name, args.other or "16bit"):
        if args.json:
            event = "tensor" if isinstance(row, TensorRow) else "total"
            print_json({"event": event, **{key: _finite(value) for key, value in asdict(row).items()}})
        else:
            print(_tensor_line(row) if isinstance(row, TensorRow) else _total_line(row), flush=True)
    return 0


def _tensor_line(row: TensorRow) -> str:
    from localllm.sanitize import sanitize_line

    shape = " x ".join(map(str, row.shape))
    sizes = f"{human_size(row.bytes_in_file):>9} {human_size(row.bytes_in_mlx):>9}"
    error = "" if row.max_error is None else _error(row.max_error, row.relative_error)
    return f"{sanitize_line(row.name):28} {shape:>16}  {row.type:6} {row.becomes:19} {sizes} {error}"


def _total_line(total: TensorTotal) -> str:
    from localllm.sanitize import sanitize_line

    error = _error(total.max_error, total.relative_error)
    worst = f" (relatively most in {sanitize_line(total.worst)})" if total.worst else ""
    refused = f"; {total.unsupported} not supported" if total.unsupported else ""
    sizes = f"{human_size(total.bytes_in_file)} in the file, {human_size(total.bytes_in_mlx)} in MLX"
    return f"\n{total.tensors} tensors: {sizes}; largest error {error}{worst}{refused}"


def _error(error: float, relative: float | None) -> str:
    """The error, and as a part of the tensor's largest weight."""
    return "0" if error == 0 else f"{error:.2g} ({relative or 0:.2g} of the largest weight)"


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor "not a number": they become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print(indent: str, facts: dict[str, Any]) -> None:
    from localllm.sanitize import sanitize_line

    for key, value in facts.items():
        name = str(key).replace("_", " ") if str(key).isidentifier() else str(key)  # a file keeps its name
        label = indent + sanitize_line(name)
        if isinstance(value, dict):
            print(label)
            _print(indent + "  ", value)
        elif value not in (None, "", []):
            print(f"{label:18} {sanitize_line(_text(key, value))}")


def _text(key: str, value: Any) -> str:
    if key == "bytes":
        return human_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if key in ("parameters", "context") else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
