"""The options of `localllm finetune` that say how to train; their names are those of tasks.settings.Settings."""

from __future__ import annotations

import argparse

_NUMBERS = (  # option, type, metavar, help
    ("--epochs", int, "N", "times over the data (default: by the number of rows)"),
    ("--max-steps", int, "N", "stop after N steps"),
    ("--batch-size", int, "N", "rows of a batch at most (default: by the number of rows)"),
    ("--batch-tokens", int, "N", "tokens of a batch at most: long rows share it with fewer others (default: 4096)"),
    ("--accumulate", int, "N", "batches of one step (default: 1)"),
    ("--learning-rate", float, "LR", "(default: by the model's width)"),
    ("--warmup", float, "PART", "of the run, in which the learning rate rises (default: 0.05)"),
    ("--weight-decay", float, "W", "(default: 0.01)"),
    ("--clip", float, "NORM", "the longest gradient; 0: any (default: 1)"),
    ("--rank", int, "R", "rank of the adapter (default: 16)"),
    ("--alpha", float, "A", "its strength; the scale is alpha / rank (default: twice the rank)"),
    ("--dropout", float, "P", "LoRA dropout (default: 0)"),
    ("--lora-plus", float, "RATIO", "learning rate of B over that of A (default: 1; more needs a lower one)"),
    ("--targets", str, "NAMES", "matrices to adapt, as q_proj,v_proj (default: all linear layers)"),
    ("--layers", int, "N", "adapt the last N layers only"),
    ("--patience", int, "N", "stop after N validations in a row without a new best"),
    ("--max-length", int, "N", "tokens of the longest row (default: the model's context, up to 2048)"),
    ("--seed", int, "N", "same data, settings and seed, same adapter (default: 0)"),
    ("--save-every", int, "N", "steps between checkpoints (default: by the clock, at most 1%% of the time)"),
)
_CHOICES = (
    ("--optimizer", ("adamw", "adafactor", "lion", "muon"), "(default: adamw)"),
    ("--schedule", ("cosine", "linear", "constant"), "how the learning rate falls (default: cosine, to a tenth)"),
)
_FLAGS = (
    ("--rslora", "scale with alpha / sqrt(rank)"),
    ("--grad-checkpoint", "compute layers twice instead of holding their activations: less memory, slower"),
    ("--dora", argparse.SUPPRESS),
)


def add(parser: argparse.ArgumentParser) -> None:
    for option, kind, metavar, line in _NUMBERS:
        parser.add_argument(option, type=kind, metavar=metavar, help=line)
    for option, choices, line in _CHOICES:
        parser.add_argument(option, choices=choices, help=line)
    for option, line in _FLAGS:
        parser.add_argument(option, action="store_true", help=line)


def names() -> set[str]:
    """Attributes of the parsed arguments."""
    options = [option for option, *_ in (*_NUMBERS, *_CHOICES, *_FLAGS)]
    return {option[2:].replace("-", "_") for option in options}
