"""A page about an adapter that opens in any browser, offline: what changed, how it was made, and what proves it.

Nothing in it is fetched and nothing in it runs. Every text is made visible (`sanitize`) and then escaped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.data.lengths import Lengths, measure
from localllm.errors import StorageError, UsageError
from localllm.evaluate.perplexity import Change
from localllm.evaluate.verdict import FORGOT, LOSS, forgets, readable
from localllm.sanitize import sanitize
from localllm.store.files import write_atomically
from localllm.store.registry import Registry
from localllm.tasks.curves import loss_svg, points
from localllm.tasks.evaluating import EvaluateResult
from localllm.tasks.heldout import HELD_OUT, read_held_out
from localllm.tune.job import METRICS
from localllm.types import AdapterRef
from localllm.weights.adapter import GGUF_NAME, WEIGHTS

REPORT = "report.html"
_HASHED = (GGUF_NAME, WEIGHTS, HELD_OUT, METRICS)
_VERIFY = {
    "passed": "passed", "rows": "rows", "positions": "positions compared", "kl": "mean KL, llama.cpp‖MLX",
    "base_kl": "mean KL of the base alone", "top1": "same top token", "effect_cosine": "effect, cosine",
    "effect_kl": "effect, nats a token", "conversion_kl": "mean KL on float32 weights",
    "conversion_base_kl": "the same of the base alone", "llama_cpp_python": "llama-cpp-python", "mlx": "MLX",
}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A line of the table of results, as text; `mood` is "good", "bad" or nothing."""

    name: str
    before: str
    after: str
    change: str
    mood: str = ""


def check_target(path: Path) -> None:
    """Raises UsageError or StorageError for a place where no report can be written, before anything is measured."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path} is no page.", "Give it a name that ends with .html.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise StorageError(f"Cannot write {path}: there is no such folder, or it is one.", "Choose another --report.")


def report_on(registry: Registry, result: EvaluateResult, target: Path) -> None:
    """The report on an adapter of this machine, or on a bare GGUF, about which less is known. Raises StorageError."""
    manifest = registry.manifest(AdapterRef(result.adapter, result.path))
    write_report(target, result.path.parent if manifest else None, manifest, result)


def write_report(
    target: Path,
    folder: Path | None,
    manifest: Mapping[str, Any],
    result: EvaluateResult,
    lengths: Mapping[str, Lengths] | None = None,
) -> None:
    """Write the page beside `target` and rename it.

    `folder` has the adapter's files, of which those that exist are used; `manifest` is what adapter.json says or will
    say; `lengths` are of further rows, by what to call them ("training rows"). Raises StorageError, AdapterError.
    """
    events = _events(folder / METRICS) if folder else []
    measured = dict(lengths or {})
    if folder and (folder / HELD_OUT).is_file():
        measured.setdefault("held-out rows", measure(read_held_out(folder / HELD_OUT)))
    hashes = {"base": manifest.get("base", {}).get("sha256", "unknown"), **_hashes(folder or result.path)}
    page = render(result, manifest, events, measured, hashes)
    write_atomically(target, page.encode("utf-8", "replace"))


def render(
    result: EvaluateResult,
    manifest: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    lengths: Mapping[str, Lengths],
    hashes: Mapping[str, str],
) -> str:
    """The page. Pure."""
    from jinja2 import Environment

    import localllm

    train, validation = points(events, "step"), points(events, "evaluated")
    environment = Environment(autoescape=True, finalize=_visible, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name(REPORT).read_text("utf-8"))
    groups = [
        ("Training", _settings(manifest)),
        ("Data", _data(manifest, lengths)),
        ("Verified against MLX", _verified(manifest)),
        ("Hashes", {f"{name} (SHA-256)": value for name, value in hashes.items()}),
    ]
    return template.render(
        name=result.adapter, base=result.model, result=result, created=manifest.get("created", ""),
        table=_table(result), mood=_mood(result), exact=_exact, groups=groups,
        limits={"loss": f"{LOSS:.0%}", "forgot": f"{FORGOT:.0%}"},
        curves=loss_svg(train, validation), validation=validation, version=localllm.__version__,
    )  # fmt: skip


def _visible(value: Any) -> Any:
    """What a person or a model wrote, before it is escaped; our own markup is neither."""
    return value if hasattr(value, "__html__") else sanitize(str(value))


def _exact(answer: str, expected: str) -> str:
    return " – as expected" if answer.strip() == expected.strip() else ""


def _mood(result: EvaluateResult) -> str:
    verdict = result.verdict
    if verdict.outcome == "worse" or verdict.forgot:
        return "bad"
    return "good" if verdict.outcome == "better" else ""


def _table(result: EvaluateResult) -> list[_Row]:
    rows = result.rows
    table = [
        _Row("loss, nats a token", f"{rows.base.mean:.4f}", f"{rows.adapter.mean:.4f}", _signed(rows.difference, ".4f"))
    ]
    table.append(_perplexity("perplexity", rows))
    for scored in result.answers.scored if result.answers else ():
        points = _signed((scored.after - scored.before) * 100, ".0f") + " points"
        table.append(_Row(scored.name, f"{scored.before:.1%}", f"{scored.after:.1%}", points))
    for name, change in (("general text", result.general), ("other topics", result.other)):
        table.append(_perplexity(f"perplexity, {name}", change, "bad" if forgets(change) else ""))
    return table


def _perplexity(name: str, change: Change, mood: str = "") -> _Row:
    part = change.perplexity_change
    said = _signed(part, ".1%") if math.isfinite(part) else "beyond all bounds"
    return _Row(name, readable(change.base.perplexity), readable(change.adapter.perplexity), said, mood)


def _signed(value: float, form: str) -> str:
    return format(value, f"+{form}").replace("-", "−")


def _settings(manifest: Mapping[str, Any]) -> dict[str, str]:
    skipped = {"data", "format", "rows", "held_out"}
    training = manifest.get("training") or {}
    return {key.replace("_", " "): _text(value) for key, value in training.items() if key not in skipped}


def _data(manifest: Mapping[str, Any], lengths: Mapping[str, Lengths]) -> dict[str, str]:
    training = manifest.get("training") or {}
    names = {"data": "file", "format": "format", "rows": "rows learned", "held_out": "rows held out"}
    facts = {said: _text(training[key]) for key, said in names.items() if key in training}
    for name, found in lengths.items():
        facts[f"{name}, tokens"] = f"{found.tokens:,}, of which {found.learned:,} count"
        facts[f"{name}, tokens a row"] = ", ".join(f"{key} {value}" for key, value in found.total.items())
    return facts


def _verified(manifest: Mapping[str, Any]) -> dict[str, str]:
    certificate = manifest.get("verify") or {}
    facts = {said: _text(certificate[key]) for key, said in _VERIFY.items() if key in certificate}
    if isinstance(top1 := certificate.get("top1"), float):
        facts[_VERIFY["top1"]] = f"{top1:.1%}"
    return facts


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _hashes(place: Path) -> dict[str, str]:
    """Of the files of a folder that we know, or of one file."""
    files = [place / name for name in _HASHED if (place / name).is_file()] if place.is_dir() else [place]
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _events(path: Path) -> list[dict[str, Any]]:
    """The events of a run; lines that are none are passed over."""
    found = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        found += [event] if isinstance(event, dict) else []
    return found
