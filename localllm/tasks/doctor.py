"""What this machine has and what it lacks, each finding with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from localllm.errors import LocalLLMError
from localllm.paths import Home
from localllm.store import catalog
from localllm.store.registry import Registry

PACKAGES = ("llama-cpp-python", "mlx", "mlx-lm", "numpy", "textual", "huggingface-hub", "gguf", "jinja2")
_SMALL_DISK = 5e9  # bytes; a 7B model at 4 bits takes about 4.5 GB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `problem` says that something will not work, `warning` that it will work badly."""

    name: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    hint: str = ""


def examine(home: Home) -> Iterator[Finding]:
    """Look at everything, cheapest first; an examination that fails is itself a finding."""
    looks: tuple[tuple[str, Callable[[Home], Finding]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("machine", _machine),
        ("memory", _memory),
        ("home", _home),
        ("disk", _disk),
        ("built-in model", _builtin),
        ("inference", _inference),
        ("training", _training),
    )
    for name, look in looks:
        try:
            yield look(home)
        except (LocalLLMError, ImportError, OSError) as e:
            yield Finding(name, "problem", str(e), "Reinstall with `make` or pip.")


def _python(home: Home) -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _packages(home: Home) -> Finding:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("packages", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", "ok", ", ".join(found))


def _machine(home: Home) -> Finding:
    return Finding("machine", "ok", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")


def _memory(home: Home) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    status: Literal["ok", "warning"] = "ok" if total >= 7e9 else "warning"
    hint = "" if status == "ok" else "Choose models of at most 3 billion parameters at 4 bits."
    return Finding("memory", status, f"{total / 1e9:.1f} GB", hint)


def _home(home: Home) -> Finding:
    folder = home.root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("home", "problem", f"{home.root} cannot be written", "Set LOCALLLM_HOME to a folder of yours.")
    return Finding("home", "ok", str(home.root))


def _disk(home: Home) -> Finding:
    folder = home.root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < _SMALL_DISK:
        return Finding("disk", "warning", f"{free / 1e9:.1f} GB free", "A 7B model at 4 bits takes about 4.5 GB.")
    return Finding("disk", "ok", f"{free / 1e9:.1f} GB free")


def _builtin(home: Home) -> Finding:
    model, card = catalog.builtin("guide"), catalog.cards().get("guide", {})
    if model is None or not model.path.is_file():
        return Finding("built-in model", "problem", "it is missing", "Reinstall the program.")
    if Registry(home).sha256(model.path) != card.get("sha256"):
        return Finding("built-in model", "problem", f"{model.path} is damaged", "Reinstall the program.")
    return Finding("built-in model", "ok", f"{model.path} ({model.path.stat().st_size / 1e6:.1f} MB, hash checked)")


def _inference(home: Home) -> Finding:
    from localllm.engine.native import system_info

    return Finding("inference", "ok", f"llama.cpp: {system_info().strip()}")


def _training(home: Home) -> Finding:
    """In a child process: loading a BLAS ahead of MLX changes the process that does it."""
    import json
    import subprocess

    code = (
        "import json, sys; from pathlib import Path; from localllm.tune.device import prepare; "
        "d = prepare(Path(sys.argv[1])); print(json.dumps([d.kind, d.blas, d.warning]))"
    )
    command = [sys.executable, "-c", code, str(home.cache)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no output"])[-1]
        return Finding("training", "problem", f"MLX does not start: {reason}", "Reinstall with `make` or pip.")
    kind, blas, warning = json.loads(child.stdout.splitlines()[-1])
    if warning:
        return Finding("training", "warning", f"MLX on {kind}, BLAS: {blas}", warning)
    return Finding("training", "ok", f"MLX on {kind}" + (f", BLAS: {blas}" if kind == "cpu" else ""))
