"""Fine-tuning and batches whose events are scripted, for driving their screens without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from localllm.data.lengths import Lengths
from localllm.errors import CancelledError, LocalLLMError
from localllm.evaluate.agreement import Agreement
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.data_report import DataReport
from localllm.tasks.finetune import Done, Started
from localllm.tasks.memory import Fit
from localllm.tasks.preparing import FinetuneRequest
from localllm.tasks.previewing import Preview
from localllm.tasks.summarize import Done as BatchDone
from localllm.tasks.summarize import Started as BatchStarted
from localllm.tasks.summary_here import BatchRequest
from localllm.tasks.summary_run import DocumentDone, PartDone, Progressed
from localllm.tasks.unfinished import Unfinished
from localllm.tui.app import LocalLLMApp
from localllm.tui.work.job import Work
from localllm.tui.work.jobs import Jobs
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Ready, Resumed, Step, Trained, Warned
from localllm.types import AdapterRef
from localllm.weights.fit import Footprint, TrainingSettings
from tests.tui.support import opener, ready, scripted, until

CONFIG = TrainConfig(epochs=4, batch_size=4, learning_rate=5e-4, rank=16, alpha=32.0)
STEPS = 80
Script = Iterator[Any] | list[Any]
"""Events; a threading.Event is waited for, and an exception raised."""


class ScriptedJobs(Jobs):
    """Each run takes the next script; what was asked for is kept."""

    def __init__(self, home: Path, *scripts: Script) -> None:
        super().__init__(Registry(Home(home)), "guide")
        self.scripts = list(scripts)
        self.asked: list[FinetuneRequest | BatchRequest] = []
        self.left_runs: list[Unfinished] = []
        self.previewed: Preview | LocalLLMError = PREVIEW
        self.best_asked = 0

    def preview(self, request: FinetuneRequest) -> Preview:
        if isinstance(self.previewed, LocalLLMError):
            raise self.previewed
        return self.previewed

    def unfinished(self) -> list[Unfinished]:
        return self.left_runs

    def discard(self, name: str) -> None:
        self.left_runs = [run for run in self.left_runs if run.name != name]

    def keep_best(self) -> None:
        assert self.training is not None
        self.best_asked += 1
        self.training.finishing = True
        self.training.version += 1

    def _finetuning(self, request: FinetuneRequest) -> Work:
        self.asked.append(request)
        return self._next()

    def _summarizing(self, request: BatchRequest) -> Work:
        self.asked.append(request)
        return self._next()

    def _next(self) -> Work:
        script = self.scripts.pop(0)
        return lambda cancel: play(script, cancel)


def play(script: Script, cancel: threading.Event) -> Iterator[Any]:
    for event in script:
        if isinstance(event, threading.Event):
            while not event.wait(0.01):
                if cancel.is_set():
                    raise CancelledError("Stopped; step 40 of 80 is saved.", "The same command goes on from there.")
        elif isinstance(event, Exception):
            raise event
        else:
            yield event


def loss_at(step: int) -> float:
    return round(2.4 * 0.955**step + 0.35 + 0.06 * (step % 3), 4)


def beginning(steps: int = 40, start: int = 0) -> list[Any]:
    """A run up to a step."""
    events: list[Any] = [
        Started("guide", "conversations", 120, 12, 9000, 2400, 96, CONFIG, STEPS),
        Warned("2 rows are the same."),
        Ready("cpu", "openblas", "float32", 86016, STEPS, 0.5, "0.32"),
    ]
    events += [Resumed(start, STEPS, 1 + start // 20)] if start else [Evaluated(0, 0, 2.7, True)]
    for step in range(start + 1, steps + 1):
        events.append(
            Step(
                step,
                STEPS,
                1 + (step - 1) // 20,
                loss_at(step),
                5e-4,
                step * 300,
                812.0,
                (STEPS - step) * 0.5,
                peak_mb=380.0 + step // 10,
            )
        )
        if step % 20 == 0:
            events.append(Evaluated(step // 20, step, loss_at(step) + 0.1, True))
    return events


def ending(name: str = "tickets") -> list[Any]:
    """What follows the last step."""
    return [
        Trained(STEPS, 4, 0.52, 2.7, False, 24000, 29.5, 412.0),
        Done(
            adapter=AdapterRef(name, Path(f"/home/me/adapters/{name}/adapter.gguf")),
            agreement=Agreement(240, 1e-5, 2e-5, 0.99, 0.99, 0.9991, 1.4), conversion=None, base_loss=2.7,
            loss=0.52, best_epoch=4, tested=40, exact_before=0.0, exact_after=0.93, tokens=24000,
            tokens_per_second=812.0, peak_rss_mb=412.0, seconds=41.0,
            verdict="Better on its rows: loss 2.70 to 0.52. Nothing forgotten: perplexity on general text 41 to 42.",
            report=Path(f"/home/me/adapters/{name}/report.html"),
        ),
    ]  # fmt: skip


def _lengths() -> Lengths:
    return Lengths(
        {"p50": 71, "max": 96}, {"p50": 50, "max": 70}, {"p50": 21, "max": 30}, 9000, 2400, ((60, 100, 120),)
    )


REPORT = DataReport(
    path="tickets.jsonl", kind="JSON Lines", format="messages", formats={"messages": 120}, unit="line", rows=120,
    unusable=(), findings=(), model="guide", limit=1024, lengths=_lengths(), valid_path=None, valid_rows=0,
)  # fmt: skip
FIT = Fit(TrainingSettings(4, 96), Footprint(*(10_000_000,) * 11), 3_000_000_000)
PREVIEW = Preview(REPORT, CONFIG, 108, 12, STEPS, FIT)
LEFT = Unfinished(FinetuneRequest(data=Path("/data/cats.jsonl"), name="cats", model="guide", resume=True), 12, 48)


def row(source: str, summary: str = "The library stays open until ten.", error: str | None = None) -> dict[str, Any]:
    part = {"start": 0, "end": 390, "tokens": 90, "summary": summary, "finish_reason": "stop", "output_tokens": 12}
    return {
        "source": source, "id": None, "title": None, "sha256": "0", "summary": None if error else summary,
        "error": error, "strategy": "single", "levels": 1, "parts": [] if error else [part], "finish_reason": "stop",
        "warnings": [], "characters": 390, "prompt_tokens": 100, "output_tokens": 12, "model": "guide",
        "model_sha256": "0", "adapter": None, "adapter_sha256": None, "settings": "0", "timings": {},
    }  # fmt: skip


def batch_beginning(first: str, second: str) -> list[Any]:
    """One document is done, another one is being read."""
    return [
        BatchStarted(3, 0),
        PartDone(first, 0, 1, 1, 0, 390, "The library stays open."),
        DocumentDone(row(first)),
        PartDone(second, 0, 2, 5, 0, 900, "A bridge was built."),
        Progressed(1, 3, 3, 0, 240.0, 75.0),
    ]


def batch_ending(second: str, third: str) -> list[Any]:
    return [
        DocumentDone(row(second, "A bridge over the river was built in 1907.")),
        DocumentDone(row(third, error=f"{third}: is empty. Leave it out.")),
        BatchDone(3, 0, 1, 0, 7, 0, 900, 120, 4.2),
    ]


def app_with(jobs: Jobs, *adapters: str, **settings: Any) -> LocalLLMApp:
    return LocalLLMApp(opener(scripted(), *adapters), model="guide", jobs=jobs, **settings)


async def open_screen(pilot: Pilot[Any], key: str) -> Any:
    """Press the key of a screen once the chat is ready."""
    await ready(pilot)
    await pilot.press(key)
    await until(pilot, lambda: len(pilot.app.screen_stack) == 2)
    await pilot.pause()
    return pilot.app.screen


async def when(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Until the screen has drawn it."""
    await until(pilot, condition, 10.0)
