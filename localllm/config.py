"""Settings: defaults, then <home>/config.toml, then LOCALLLM_* variables; flags are applied by the command line."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from localllm.errors import UsageError
from localllm.paths import Home


@dataclass(frozen=True)
class Settings:
    """What a person can set once for all commands."""

    model: str = "guide"
    """Name or path of the model that is used without --model."""
    adapter: str = ""
    """Adapter that is used without --adapter; empty for none."""
    ctx: int = 0
    """Tokens of context; 0 takes the model's own, up to 4096."""
    threads: int = 0
    """CPU threads; 0 takes the physical cores, fewer for a tiny model."""


def load_settings(home: Home, environ: dict[str, str] | None = None) -> Settings:
    """Resolve the settings once. Raises UsageError, naming the file or variable, for an unknown key or a wrong type."""
    environ = dict(os.environ) if environ is None else environ
    values = _from_file(home.config_file)
    for field in fields(Settings):
        variable = f"LOCALLLM_{field.name.upper()}"
        if variable in environ:
            values[field.name] = _convert(field.name, environ[variable], f"the variable {variable}")
    return Settings(**values)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise UsageError(f"{path} cannot be read: {e}.", "Correct the file or remove it.") from e
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(set(table) - known):
        raise UsageError(f"{path} has unknown keys: {', '.join(unknown)}.", f"Known keys: {', '.join(sorted(known))}.")
    return {key: _convert(key, value, str(path)) for key, value in table.items()}


def _convert(name: str, value: Any, where: str) -> Any:
    default = next(field.default for field in fields(Settings) if field.name == name)
    if isinstance(default, int):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise UsageError(f"{name} in {where} must be a whole number, not {value!r}.") from None
    if not isinstance(value, str):
        raise UsageError(f"{name} in {where} must be text, not {value!r}.")
    return value
