"""PEFT's adapter_config.json: what of it a low-rank product can hold, and what is refused with the reason.

Fields as in peft/tuners/lora/config.py; how a layer finds its alpha, in utils/other.py, get_pattern_key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.errors import AdapterError
from localllm.weights.adapter import Adapter, json_number
from localllm.weights.adapter import read_config as read_json
from localllm.weights.names import EMBEDDING, OUTPUT, Slot

CONFIG = "adapter_config.json"
_REFUSED = {
    "use_dora": "is a DoRA, which scales the weights themselves",
    "modules_to_save": "replaces whole modules ({value})",
    "trainable_token_indices": "replaces rows of the embedding",
    "target_parameters": "changes parameters that are no modules ({value})",
    "layer_replication": "repeats layers of the model",
    "fan_in_fan_out": "is for layers with transposed weights",
    "lora_bias": "has biases of its own",
    "alora_invocation_tokens": "is an activated LoRA (aLoRA), which works only after a certain text",
    "use_qalora": "is a QA-LoRA, which pools its input",
    "use_bdlora": "is a BD-LoRA, whose matrices are in blocks",
    "arrow_config": "chooses between several adapters (Arrow)",
    "kasa_config": "is a KaSA, which changes the weights it is added to",
    "monteclora_config": "draws its weights at random (MonteCLoRA)",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin (init_lora_weights) that change the base too; PEFT can save an adapter free of them."""
MAX_PATTERN, MAX_REPEATS = 200, 2


@dataclass(frozen=True)
class Config:
    """What a reader needs of the file."""

    alpha: float
    alphas: Mapping[str, float]
    """Of layers whose name ends as the key says, a regular expression; the first that matches counts."""
    rank_stabilized: bool
    dropout: float
    ties_output: bool
    """The adapter of the embedding is the output's too (ensure_weight_tying)."""

    def scale(self, module: str, rank: int) -> float:
        """What the product of that module is multiplied with."""
        found = next((key for key in self.alphas if re.match(rf"(.*\.)?({key})$", module)), None)
        alpha = self.alpha if found is None else self.alphas[found]
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank) if rank else 0.0


def read_config(path: Path) -> Config:
    """Raises AdapterError, in one sentence with the reason, for what is not a plain LoRA."""
    config = read_json(path)
    if (kind := config.get("peft_type")) != "LORA":
        raise AdapterError(f"{path} is for the method {kind}; only LORA can be used.")
    _refuse(path, config)
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise AdapterError(f"{path} has an alpha_pattern that is no map.")
    return Config(
        alpha=json_number(path, "lora_alpha", config.get("lora_alpha", 8)),
        alphas={_pattern(path, key): json_number(path, "alpha_pattern", value) for key, value in alphas.items()},
        rank_stabilized=bool(config.get("use_rslora")),
        dropout=json_number(path, "lora_dropout", config.get("lora_dropout") or 0.0),
        ties_output=bool(config.get("ensure_weight_tying")),
    )


def write_config(path: Path, adapter: Adapter, slots: Mapping[str, Slot]) -> None:
    """The configuration of a plain LoRA, renamed into place. `slots` are all modules of the base."""
    tied = EMBEDDING in adapter.layers and OUTPUT not in slots
    own = {name: a.shape[1] for name, (a, _) in adapter.layers.items()}
    own |= {OUTPUT: own[EMBEDDING]} if tied else {}
    ranks = {name: rank for name, rank in own.items() if rank != adapter.rank}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": adapter.rank,
        "lora_alpha": _plain(adapter.alpha),
        "lora_dropout": adapter.dropout,
        "rank_pattern": ranks,
        "alpha_pattern": {},
        "target_modules": _targets(own, slots),
        "ensure_weight_tying": tied,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    part.replace(path)


def _targets(adapted: Collection[str], slots: Collection[str]) -> list[str]:
    """Last parts of the names, as people write them, where all modules with them are adapted; else the full names."""
    short = {name.rpartition(".")[2] for name in adapted}
    meant = {name for name in {*slots, *adapted} if name.rpartition(".")[2] in short}
    return sorted(short if meant == set(adapted) else adapted)


def _refuse(path: Path, config: dict[str, Any]) -> None:
    hint = "Merge it with PEFT and convert the whole model, or train it as a plain LoRA."
    for key, reason in _REFUSED.items():
        if value := config.get(key):
            listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            raise AdapterError(f"{path.parent} {reason.format(value=listed)}; such adapters cannot be used here.", hint)
    if (bias := config.get("bias", "none")) not in ("none", None):
        raise AdapterError(f"{path.parent} changes biases (bias: {bias}); llama.cpp has no such adapters.", hint)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        message = f"{path.parent} began as {start}, which changes the base model as well."
        raise AdapterError(message, "Save it with PEFT's path_initial_model_for_weight_conversion.")


def _pattern(path: Path, key: str) -> str:
    """A regular expression that cannot run for long: short, few repetitions, none of a group."""
    repeats = len(re.findall(r"[*+?{]", key))
    try:
        re.compile(key)
    except (re.error, RecursionError, OverflowError):
        repeats = MAX_REPEATS + 1
    if len(key) > MAX_PATTERN or repeats > MAX_REPEATS or re.search(r"[)][*+?{]|[(][?]|\\\d", key):
        raise AdapterError(f"{path} has {key[:60]!r} in its alpha_pattern, which is too intricate to follow.")
    return key


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
