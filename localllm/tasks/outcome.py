"""What an adapter of ours says of itself: in its GGUF's metadata, in its manifest, and in its report."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localllm.data.lengths import measure
from localllm.tasks.answering import ExactMatch
from localllm.tasks.evaluating import EvaluateProgress, EvaluateResult, EvaluateStarted, evaluate_rows
from localllm.tasks.preparing import FinetuneRequest, Prepared
from localllm.tasks.report import REPORT, write_report
from localllm.tasks.verify import Rows, VerifyResult
from localllm.tune.events import Trained
from localllm.types import AdapterRef
from localllm.weights.adapter import GGUF_NAME


def facts_of(request: FinetuneRequest, prepared: Prepared, trained: Trained, base_sha256: str) -> dict[str, Any]:
    """What the GGUF adapter says of itself: its base, how it was trained, and its validation loss."""
    config = prepared.config
    training = {
        "data": request.source or request.data.name, "format": prepared.format, "rows": len(prepared.train),
        "held_out": len(prepared.held_out), "epochs": config.epochs, "steps": trained.steps,
        "best_epoch": trained.best_epoch, "batch_size": config.batch_size, "learning_rate": config.learning_rate,
        "rank": config.rank, "alpha": config.alpha, "dropout": config.dropout, "seed": config.seed,
        "accumulate": config.accumulate, "optimizer": config.optimizer, "schedule": config.schedule,
        "rslora": config.rslora, "lora_plus": config.lora_plus, "stopped_early": trained.early,
        "base_loss": trained.first_loss, "loss": trained.best_loss, "tokens": trained.tokens,
        "seconds": trained.seconds,
    }  # fmt: skip
    training |= prepared.mlx.facts() if prepared.mlx else {}
    base = {"name": prepared.model.name, "sha256": base_sha256}
    return {"general.name": request.name, **prefixed("base", base), **prefixed("training", training)}


def prefixed(group: str, values: dict[str, Any]) -> dict[str, Any]:
    """Values as metadata of a GGUF."""
    return {f"localllm.{group}.{key}": value for key, value in values.items()}


def manifest_of(
    name: str, prepared: Prepared, facts: dict[str, Any], verified: VerifyResult, matched: ExactMatch
) -> dict[str, Any]:
    """adapter.json, the last file: that it exists means that all others are complete."""

    def group(prefix: str) -> dict[str, Any]:
        start = f"localllm.{prefix}."
        return {key.removeprefix(start): value for key, value in facts.items() if key.startswith(start)}

    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {**group("base"), "path": str(prepared.model.path.resolve())},
        "training": group("training"),
        "verify": verified.certificate,
        "test": asdict(matched) if matched.rows else None,
    }


def reported(
    folder: Path, prepared: Prepared, manifest: dict[str, Any], cancel: threading.Event | None
) -> Generator[EvaluateStarted | EvaluateProgress, None, EvaluateResult]:
    """Evaluate the adapter in `folder` on the rows that were held out, and write its report there."""
    adapter, result = AdapterRef(manifest["name"], folder / GGUF_NAME), None
    for event in evaluate_rows(adapter, prepared.model, Rows("held-out", prepared.held_out), cancel=cancel):
        if isinstance(event, EvaluateResult):
            result = event
        else:
            yield event
    assert result is not None
    manifest["evaluation"] = result.record()
    lengths = {"training rows": measure(prepared.train), "held-out rows": measure(prepared.held_out)}
    write_report(folder / REPORT, folder, manifest, result, lengths)
    return result
