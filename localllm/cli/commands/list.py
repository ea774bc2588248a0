"""`localllm list`: models and adapters on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from localllm.cli import options
from localllm.cli.output import human_size, print_json


def add(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.sanitize import sanitize_line
    from localllm.tasks.inventory import list_adapters, list_models

    registry = options.setup(args).registry
    models, adapters = list_models(registry), list_adapters(registry)
    if args.json:
        print_json({"models": models, "adapters": adapters})
        return 0
    print(f"{'MODEL':24} {'SIZE':>9}  {'ARCHITECTURE':14} {'WEIGHTS':22} WHERE")
    for row in models:
        print(sanitize_line(_error_line(row)) if "error" in row else _columns(sanitize_line, row))
    print(f"\n{'ADAPTER':24} {'SIZE':>9}  {'BASE':14} VERIFIED")
    for row in adapters:
        name, base = sanitize_line(row["name"]), sanitize_line(row["base"] or "?")
        verified = {True: "yes", False: "failed"}.get(row["verified"], "no")
        print(f"{name:24} {human_size(row['bytes']):>9}  {base:14} {verified}")
    if not adapters:
        print("none yet; make one with: localllm finetune DATA.jsonl --name NAME")
    return 0


def _error_line(row: dict[str, Any]) -> str:
    return f"{row['name']:24} {'unusable':>9}  {row['error']}"


def _columns(clean: Any, row: dict[str, Any]) -> str:
    cells = {key: clean(str(value)) for key, value in row.items()}
    size = human_size(row["bytes"])
    return f"{cells['name']:24} {size:>9}  {cells['architecture']:14} {cells['quantization']:22} {cells['source']}"
