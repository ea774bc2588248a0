"""A child of ray_nodes.py without Ray: the function that it is to call says how it misbehaves. It marks each start."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from localllm import children


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    lines = iter(sys.stdin.readline, "\n")
    order = json.loads(next(lines))
    rows = [json.loads(line) for line in lines]
    children.end_with_parent(1)
    marks = Path(order["arguments"]["marks"])
    with marks.open("a") as file:
        file.write(f"{len(rows)}\n")
    first = len(marks.read_text().splitlines()) == 1
    kind = order["function"]
    for number, row in enumerate(rows):
        if kind == "tells" and number == 1:
            say(number=row["number"], result="", error=["box: it has no such model.", "Fetch it."])
        if kind == "no_cluster":
            say(no_cluster="nobody there")
        if first and number == 3:
            if kind == "dies":
                os._exit(1)
            if kind == "fails":
                say(failed="a machine was lost")
            if kind == "sleeps":
                time.sleep(60)
        if kind == "never":
            say(failed="the disk of the cluster is full")
        say(number=row["number"], result=row["item"].upper(), error=None)
        if kind == "twice":
            say(number=row["number"], result="again", error=None)
    time.sleep(60)


if __name__ == "__main__":
    main()
