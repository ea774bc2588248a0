"""`localllm list`: models and adapters on this machine, and with --all those of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from localllm.cli import options
from localllm.cli.output import human_size, print_json, say


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also those of Ollama, LM Studio, the hub's cache, ...")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--add", type=Path, metavar="FOLDER", help="look for models in this folder too, from now on")
    change.add_argument("--forget", type=Path, metavar="FOLDER", help="look there no longer; nothing is deleted")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.tasks.listing import list_adapters, list_foreign, list_models

    registry = options.setup(args).registry
    _change(args, registry.home.folders_file)
    models, adapters = list_models(registry), list_adapters(registry)
    foreign = list_foreign(registry) if args.all or args.add else None
    if args.json:
        print_json({"models": models, "adapters": adapters} | ({} if foreign is None else {"foreign": foreign}))
        return 0
    rows = [*models, *(foreign or ())]
    width = max(24, min(56, max((len(str(row["name"])) for row in rows), default=0)))
    print(f"{'MODEL':{width}} {'SIZE':>9}  {'ARCHITECTURE':14} {'WEIGHTS':22} WHERE")
    for row in rows:
        print(_line(row, width))
    _print_adapters(adapters)
    if foreign == []:
        say("No models of other programs were found; add a folder with: localllm list --add FOLDER")
    return 0


def _change(args: argparse.Namespace, file: Path) -> None:
    from localllm.store.foreign.added import add_folder, forget_folder

    if args.add:
        say(f"Models are looked for in {add_folder(file, args.add)} from now on.")
    if args.forget:
        say(f"{forget_folder(file, args.forget)} is forgotten; nothing in it was touched.")


def _print_adapters(adapters: list[dict[str, Any]]) -> None:
    from localllm.sanitize import sanitize_line

    print(f"\n{'ADAPTER':24} {'SIZE':>9}  {'BASE':14} VERIFIED")
    for row in adapters:
        if "error" in row:
            print(f"{sanitize_line(row['name']):24} {'unusable':>9}  {sanitize_line(row['error'])}")
            continue
        name, base = sanitize_line(row["name"]), sanitize_line(row["base"] or "?")
        verified = {True: "yes", False: "failed"}.get(row["verified"], "no")
        print(f"{name:24} {human_size(row['bytes']):>9}  {base:14} {verified}")
    if not adapters:
        print("none yet; make one with: localllm finetune DATA.jsonl --name NAME")


def _line(row: dict[str, Any], width: int) -> str:
    from localllm.sanitize import sanitize_line

    name = f"{sanitize_line(row['name']):{width}}"
    if "error" in row:
        return f"{name} {'unusable':>9}  {sanitize_line(row['error'])}"
    cells = [sanitize_line(str(row[key])) for key in ("architecture", "quantization", "source")]
    return f"{name} {human_size(row['bytes']):>9}  {cells[0]:14} {cells[1]:22} {cells[2]}"
