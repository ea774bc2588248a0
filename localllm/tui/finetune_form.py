"""The settings of the fine-tune form: what each is called and means, and the request that what was typed asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.errors import UsageError
from localllm.tasks.preparing import FinetuneRequest


@dataclass(frozen=True)
class Setting:
    """One number or path; `name` is that of FinetuneRequest."""

    name: str
    label: str
    meaning: str
    read: Callable[[str], Any]
    default: str
    """Shown while nothing is typed."""


def _path(text: str) -> Path:
    return Path(text).expanduser()


PLAIN = (
    Setting("epochs", "Epochs", "times over the data", int, "by rows"),
    Setting("rank", "Rank", "size of the adapter: higher learns more, takes more memory", int, "16"),
    Setting("learning_rate", "Learning rate", "how far a step goes; lower it when the loss jumps", float, "by width"),
    Setting("batch_size", "Batch size", "rows of a step", int, "by rows"),
    Setting("max_length", "Max length", "tokens of the longest row", int, "to 2048"),
)
ADVANCED = (
    Setting("max_steps", "Max steps", "end after so many, whatever the epochs", int, "all"),
    Setting("patience", "Patience", "end after so many validations without a new best", int, "never"),
    Setting("alpha", "Alpha", "strength of the adapter; the scale is alpha / rank", float, "2 x rank"),
    Setting("dropout", "Dropout", "part of the numbers left out at random, against overfitting", float, "0"),
    Setting("accumulate", "Accumulate", "batches of one step: a larger step in the same memory", int, "1"),
    Setting("warmup", "Warmup", "part of the run in which the learning rate rises", float, "0.05"),
    Setting("seed", "Seed", "same data, settings and seed, same adapter", int, "0"),
    Setting("valid", "Validate on", "a file of rows", _path, "a tenth"),
    Setting("test", "Test on", "a file of rows to answer before and after", _path, "none"),
)
FLAGS = (
    ("grad_checkpoint", "Less memory", "slower: compute layers twice instead of holding their activations"),
    ("overwrite", "Replace", "an adapter of that name"),
    ("restart", "Begin anew", "even if a run of that name was left"),
)
TOO_LONG = (("stop and say which", "error"), ("leave them out", "skip"), ("split them", "split"))
TRAIN_ON = (("every answer", "assistant"), ("the last answer", "last"), ("every token", "all"))


def read(values: Mapping[str, str], flags: Mapping[str, bool], choices: Mapping[str, str]) -> FinetuneRequest:
    """The request that the form asks for. Raises UsageError naming the field that cannot be meant."""
    data = values["data"].strip()
    if not data:
        raise UsageError("There are no data to learn from yet.", "Name a file of rows, or browse for one.")
    path = Path(data).expanduser()
    chosen: dict[str, Any] = {**flags, **choices}
    for setting in (*PLAIN, *ADVANCED):
        if typed := values.get(setting.name, "").strip():
            try:
                chosen[setting.name] = setting.read(typed)
            except ValueError:
                kind = "a whole number" if setting.read is int else "a number"
                raise UsageError(f"{setting.label} must be {kind}, not {typed!r}.", setting.meaning) from None
    name = values["name"].strip() or path.stem or "adapter"
    return FinetuneRequest(data=path, name=name, report=True, **chosen)
