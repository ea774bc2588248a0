"""`localllm doctor`: what this machine has and what it lacks."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from localllm.cli import options
from localllm.cli.output import print_json

_SIGNS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


def add(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.paths import Home
    from localllm.sanitize import sanitize_line
    from localllm.tasks.doctor import examine

    findings = []
    for finding in examine(Home.locate()):
        findings.append(finding)
        if not args.json:
            hint = f" {finding.hint}" if finding.hint else ""
            print(f"{_SIGNS[finding.status]}  {finding.name:15} {sanitize_line(finding.detail + hint)}", flush=True)
    healthy = all(finding.status != "problem" for finding in findings)
    if args.json:
        print_json({"healthy": healthy, "findings": [asdict(f) for f in findings]})
    return 0 if healthy else 1
