"""`python tests/tune/rank.py FOLDER`: one rank of the runs that test_group.py compares; it leaves results.npz there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from localllm.errors import TrainingError
from localllm.tune import checkpoint
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Resumed, Step
from localllm.tune.group import ALONE, Group, join
from localllm.tune.load import load_model
from localllm.tune.loop import train
from localllm.tune.lora import attach, tensors
from localllm.tune.ranks import place
from localllm.tune.saving import Saver
from localllm.types import Example
from localllm.weights.gguf import read_header
from tests.tune.test_loss import rows
from tests.weights.oracle import fixture

PLAIN = TrainConfig(epochs=2, batch_size=5, learning_rate=1e-3, rank=4, alpha=8.0)
CONFIGS = {
    "plain": PLAIN,
    "accumulated": replace(PLAIN, accumulate=2),
    "clipped": replace(PLAIN, clip_norm=0.01, max_steps=3),
    "single rows": replace(PLAIN, batch_size=1, max_steps=4),  # one process has nothing to do
}
SILENT = Example((1, 300, 301, 302, 303), (False,) * 5)
LONG = Example((1, *range(300, 340)), (False,) * 2 + (True,) * 39)
"""Many more supervised tokens than the others have: shares that are averaged instead of summed would show."""
TRAIN = [*rows(18), SILENT, LONG, LONG]
HELD_OUT = [*rows(4, 1), LONG]


def trained(
    config: TrainConfig, group: Group = ALONE, saver: Saver | None = None, watch: Callable[[Any], bool] | None = None
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The adapter as it ends and the events, up to the one where `watch` says that the process dies."""
    model = load_model(read_header(fixture("llama")), "float32")
    attach(model, config.rank, config.alpha, config.dropout, config.seed)
    events = []
    for event in train(model, config, TRAIN, HELD_OUT, lambda best, log: None, saver, group):
        events.append(event)
        if watch is not None and watch(event):
            break
    return tensors(model), events


def losses(events: list[Any]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step | Evaluated)]


def main(folder: Path) -> None:
    mx.set_default_device(mx.cpu)
    group = join(place(os.environ))
    found: dict[str, Any] = {"rank": group.rank, "size": group.size}
    for name, config in CONFIGS.items():
        adapter, events = trained(config, group)
        found |= {f"{name}/adapter/{key}": value for key, value in adapter.items()}
        found |= {f"{name}/losses": losses(events), f"{name}/rows": [len(e.rows) for e in events if type(e) is Step]}
    found |= resumed(folder / f"own-{group.rank}", group)
    found |= stopped(folder / f"stop-{group.rank}", group)
    found |= talk(group)
    np.savez(folder / f"results-{group.rank}.npz", **found)


def resumed(folder: Path, group: Group) -> dict[str, Any]:
    """Adapters of a run with dropout: undisturbed, and one that died twice; only rank 0 finds its checkpoints."""
    config, found = replace(PLAIN, dropout=0.2, max_steps=7), {}

    def saver(name: str) -> Saver:
        (folder / name).mkdir(parents=True, exist_ok=True)
        return Saver(folder / name, {}, {"device": "cpu"}, 1, group)

    found["undisturbed"], _ = trained(config, group, saver("undisturbed"))
    for step in (3, 6):
        trained(config, group, saver("killed"), lambda event, step=step: isinstance(event, Step) and event.step == step)
    found["killed"], events = trained(config, group, saver("killed"))
    named = {f"{name}/adapter/{key}": value for name, part in found.items() for key, value in part.items()}
    files = len(list(folder.glob("*/*")))
    return named | {"resumed at": [e.step for e in events if isinstance(e, Resumed)], "checkpoints": files}


def stopped(folder: Path, group: Group) -> dict[str, Any]:
    """Rank 1 is told to stop at its second step."""
    folder.mkdir()
    saver = Saver(folder, {}, {}, None, group)

    def told(event: Any) -> bool:
        saver.stop = group.rank == 1 and isinstance(event, Step) and event.step == 2
        return False

    _, events = trained(PLAIN, group, saver, told)
    last = checkpoint.newest(folder).checkpoint
    return {"stopped after": events[-1].step, "saved": last.facts["step"] if last else -1}


def talk(group: Group) -> dict[str, Any]:
    big = bytes(range(256)) * 300
    sent = [group.from_first(content if group.rank == 0 else b"other") for content in (big, None)]
    said = ""
    try:
        group.check_same({"base": "a", "seed": group.rank})
    except TrainingError as error:
        said = error.message
    gathered = json.dumps(group.gather({"rank": group.rank, "text": "ö" * (3 * group.rank)}))
    return {"sent": sent == [big, None], "gathered": gathered, "refused": said, "any": group.any(group.rank == 1)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
