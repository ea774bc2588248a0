"""`localllm data check` and `data show`: a dataset looked at before anything is trained on it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from localllm.cli import dataset_option, options
from localllm.cli.dataset_option import Datasets
from localllm.cli.output import cancellable, print_json

if TYPE_CHECKING:
    from localllm.data.checks import Finding
    from localllm.data.lengths import Lengths
    from localllm.tasks.data_report import DataReport

_MOST = 20
"""Problems that are printed; --json has all."""
_BAR = 40


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="SUBCOMMAND", title="subcommands", required=True)
    check = _subcommand(what, "check", "report its format, bad rows, repeats and lengths, before any model is loaded")
    check.add_argument("--valid", metavar="FILE", help="validation rows: none should be in DATA too")
    check.add_argument("--max-length", type=int, metavar="N", help="tokens of the longest row (as for finetune)")
    show = _subcommand(what, "show", "print rows as the model sees them, with the tokens that are learned")
    show.add_argument("-n", "--rows", type=int, default=3, metavar="N", help="how many rows (default: 3)")
    show.add_argument("--line", type=int, metavar="L", help="begin with the row at this line")


def _subcommand(what: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str) -> (
    argparse.ArgumentParser
):  # fmt: skip
    parser = what.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    parser.add_argument("data", metavar="DATA", help=dataset_option.HELP)
    dataset_option.add_revision(parser)
    parser.add_argument("-m", "--model", metavar="M", help="whose tokens and template (default: the built-in model)")
    parser.add_argument(
        "--train-on",
        choices=("assistant", "last", "all"),
        default="assistant",
        help="what is learned (as for finetune)",
    )
    options.add_json(parser, "print one JSON object" + ("" if name == "check" else " for each row"))
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int:
    return _check(args) if args.what == "check" else _show(args)


def _check(args: argparse.Namespace) -> int:
    from localllm.tasks.data_report import CheckRequest, check_data

    setup = options.setup(args)
    datasets = Datasets(setup.registry, quiet=args.json)
    with cancellable() as cancel:
        data, valid = datasets.rows(args.data, args.revision, cancel=cancel), datasets.path(args.valid, cancel=cancel)
    request = CheckRequest(data.path, setup.model, valid, args.max_length, args.train_on)
    report = check_data(setup.registry, request)
    if args.json:
        print_json({**asdict(report), "usable": not report.unusable, "verdict": report.verdict})
    else:
        _print_report(report)
    return 1 if report.unusable else 0


def _print_report(report: DataReport) -> None:
    from localllm.sanitize import sanitize_line

    formats = ", ".join(f"{count:,} {name}" for name, count in report.formats.items()) or "none that can be read"
    print(f"{'file':10} {sanitize_line(report.path)} ({report.kind})")
    print(f"{'rows':10} {formats}")
    if report.valid_path:
        print(f"{'validation':10} {report.valid_rows:,} rows of {sanitize_line(report.valid_path)}")
    if report.lengths:
        _print_lengths(report.lengths, report.model, report.limit)
    for title, findings in (("cannot be used", report.unusable), ("to look at", report.findings)):
        if findings:
            print(f"\n{title}:")
            _print_findings(findings, report.unit)
    print(f"\n{sanitize_line(report.verdict)}")


def _print_lengths(lengths: Lengths, model: str, limit: int) -> None:
    from localllm.sanitize import sanitize_line

    share = lengths.learned / lengths.tokens
    counted = f"{lengths.tokens:,} of {sanitize_line(model)}, {lengths.learned:,} of them learned ({share:.0%})"
    print(f"{'tokens':10} {counted}; at most {limit:,} a row")
    print(f"\n{'':10} " + "".join(f"{name:>8}" for name in lengths.total))
    for name, values in (("row", lengths.total), ("prompt", lengths.prompt), ("learned", lengths.answer)):
        print(f"{name:10} " + "".join(f"{value:8,}" for value in values.values()))
    print()
    most = max(count for _, _, count in lengths.histogram)
    for low, high, count in lengths.histogram:
        bar = "█" * max(round(_BAR * count / most), count > 0)
        print(f"{f'{low}–{high}':>12}  {bar} {count}")


def _print_findings(findings: tuple[Finding, ...], unit: str) -> None:
    from localllm.data.dataset import at
    from localllm.sanitize import sanitize_line

    for finding in findings[:_MOST]:
        lines = finding.lines
        where = f"{at(unit, lines)}: " if finding.kind == "unusable" else ""
        count = f" ({len(lines)} of them)" if where and len(lines) > 8 else ""
        print(f"  {sanitize_line(where + finding.message + count)}")
    if len(findings) > _MOST:
        rest = findings[_MOST:]
        print(f"  … and {sum(len(f.lines) for f in rest)} more {unit}s with {len(rest)} other problems (see --json)")


def _show(args: argparse.Namespace) -> int:
    from localllm.cli.token_view import TokenView
    from localllm.tasks.data_rows import show_rows

    setup = options.setup(args)
    view = TokenView.for_terminal()
    with cancellable() as cancel:
        data = Datasets(setup.registry, quiet=args.json).rows(args.data, args.revision, cancel=cancel)
    for row in show_rows(setup.registry, data.path, setup.model, args.rows, args.line, args.train_on):
        if args.json:
            print_json({**asdict(row), "tokens": len(row.pieces), "learned": row.learned})
        else:
            print(view.row(row))
    return 0
