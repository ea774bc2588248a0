"""The sampling parameters as a person sets them: names, meanings, presets, and reading what was typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from localllm.errors import UsageError
from localllm.types import Sampling


@dataclass(frozen=True)
class Parameter:
    """A field of Sampling. `low` to `high` is what makes sense for it."""

    name: str
    label: str
    meaning: str
    low: float
    high: float
    whole: bool = False


PARAMETERS = (
    Parameter("temperature", "Temperature", "0: always the likeliest; higher: varied", 0, 5),
    Parameter("top_k", "Top k", "keep only the k likeliest; 0 keeps all", 0, 1e6, True),
    Parameter("top_p", "Top p", "keep the likeliest that sum to p; 1: all", 0, 1),
    Parameter("min_p", "Min p", "drop those below this part of the first", 0, 1),
    Parameter("repeat_penalty", "Repeat penalty", "recent tokens less likely; 1 is off", 0.1, 5),
    Parameter("presence_penalty", "Presence penalty", "subtracted once from recent tokens", -5, 5),
    Parameter("frequency_penalty", "Frequency penalty", "subtracted for each time one occurred", -5, 5),
    Parameter("penalty_last_n", "Penalty window", "how many recent tokens that concerns", 0, 1e6, True),
    Parameter("max_tokens", "Most tokens", "of a reply; empty: no limit of its own", 1, 1e6, True),
    Parameter("seed", "Seed", "same seed and settings, same reply", 0, 2**32 - 1, True),
)
PRESETS: dict[str, tuple[str, dict[str, float | int]]] = {
    "precise": (
        "always the likeliest token",
        {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    ),
    "balanced": (
        "varied, and to the point",
        {"temperature": 0.7, "top_k": 0, "top_p": 0.95, "min_p": 0.05},
    ),
    "creative": (
        "surprising",
        {"temperature": 1.1, "top_k": 0, "top_p": 0.98, "min_p": 0.02},
    ),
}
"""Name -> (what it is for, fields of Sampling)."""


def shown(sampling: Sampling, parameter: Parameter) -> str:
    """The value as text; empty for none."""
    value = getattr(sampling, parameter.name)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def preset_of(sampling: Sampling) -> str | None:
    """The preset that these settings are."""
    return next((name for name, (_, v) in PRESETS.items() if replace(sampling, **v) == sampling), None)  # type: ignore[arg-type]


def read(sampling: Sampling, typed: Mapping[str, str]) -> Sampling:
    """The settings with what was typed. Raises UsageError naming the first that is wrong."""
    values: dict[str, float | int | None] = {}
    for parameter in PARAMETERS:
        if parameter.name in typed:
            values[parameter.name] = _number(parameter, typed[parameter.name].strip())
    return replace(sampling, **values)  # type: ignore[arg-type]


def _number(parameter: Parameter, text: str) -> float | int | None:
    if not text and parameter.name == "max_tokens":
        return None
    try:
        value = int(text) if parameter.whole else float(text.replace(",", "."))
    except ValueError:
        kind = "a whole number" if parameter.whole else "a number"
        raise UsageError(f"{parameter.label} must be {kind}, not {text!r}.") from None
    if not parameter.low <= value <= parameter.high:
        raise UsageError(f"{parameter.label} must be from {parameter.low:g} to {parameter.high:g}, not {text}.")
    return value


def read_schema(text: str) -> str | None:
    """A JSON schema as typed; None for nothing. Raises UsageError saying where it is wrong."""
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"The JSON schema is not JSON: {error.msg} ({where}).") from None
    if not isinstance(value, dict):
        raise UsageError("The JSON schema must be a JSON object.", 'For example {"type": "object"}.')
    return text
