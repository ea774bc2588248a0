"""When a run is saved, and how it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from localllm.errors import TrainingError
from localllm.tune import checkpoint
from localllm.tune.checkpoint import Checkpoint
from localllm.tune.events import Resumed, TuneEvent, Warned
from localllm.tune.group import ALONE, Group
from localllm.tune.job import FINISH
from localllm.tune.state import Progress

SECONDS = 20.0
"""Between two checkpoints at least, where no number of steps was asked for."""
SHARE = 0.01
"""Of the time that saving may take."""


class Saved(Protocol):
    """A run that can be put down and taken up again."""

    progress: Progress
    steps: int

    def arrays(self) -> dict[str, NDArray[Any]]: ...

    def restore(self, arrays: Mapping[str, NDArray[Any]], progress: Progress) -> None: ...


class Saver:
    """Keeps the checkpoints of one run in its folder: of several processes, the first does."""

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        runtime: Mapping[str, Any],
        every: int | None = None,
        group: Group = ALONE,
    ) -> None:
        """`runtime` is what computes: results are the same to the bit only where it is. `every` is in steps."""
        self._folder, self._facts, self._every = folder, {"fingerprint": fingerprint, "runtime": runtime}, every
        self._group = group
        self._last, self._cost, self._warned = time.perf_counter(), 0.0, False
        self.stop = False
        """Set it to have the run put down after the step that is going on."""

    def finish(self) -> bool:
        """Whether somebody asks for the run to end with the best so far; a run of several processes does not."""
        return self._group.size == 1 and (self._folder / FINISH).exists()

    def restore(self, run: Saved) -> Iterator[TuneEvent]:
        """Go on from the newest whole checkpoint, or write the first. Raises TrainingError on another device.

        Several processes all go on from the first one's.
        """
        found = checkpoint.newest(self._folder)
        for path in found.damaged:
            yield Warned(f"The checkpoint {path.name} is damaged and was left out; the one before it is used.")
            path.unlink(missing_ok=True)
        last = self._of_first(found.checkpoint)
        if last is None:  # so that the next process computes as this one does, whenever this one ends
            yield from self.save(run)
            return
        facts = last.facts
        if facts["runtime"] != self._facts["runtime"]:
            was, now = facts["runtime"], self._facts["runtime"]
            raise TrainingError(
                f"The run was begun on {_named(was)}, and this is {_named(now)}: it would not go on exactly.",
                "Go on where it was begun, or add --restart to begin anew.",
            )
        run.restore(last.arrays, Progress(**facts["progress"]))
        if run.progress.step:
            yield Resumed(run.progress.step, run.steps, run.progress.epoch)

    def _of_first(self, own: Checkpoint | None) -> Checkpoint | None:
        if self._group.size == 1:
            return own
        content = self._group.from_first(checkpoint.pack(own) if own else None)
        return checkpoint.unpack(content) if content else None

    def after_step(self, run: Saved, stop: bool) -> Iterator[Warned]:
        """Save where it is time to, or where the run stops here."""
        waited = time.perf_counter() - self._last
        due = run.progress.step % self._every == 0 if self._every else waited > max(SECONDS, self._cost / SHARE)
        if due or stop:
            yield from self.save(run)

    def save(self, run: Saved) -> Iterator[Warned]:
        """Save now. A disk that does not take it is said once; the last checkpoint stays and training goes on."""
        if self._group.rank:
            return
        started = time.perf_counter()
        facts = {**self._facts, "step": run.progress.step, "steps": run.steps, "progress": run.progress.facts()}
        try:
            checkpoint.write(self._folder, Checkpoint(run.arrays(), facts))
        except OSError as error:
            if not self._warned:
                yield Warned(
                    f"The run could not be saved at step {run.progress.step} ({error.strerror or error}); training "
                    "goes on, and what was saved before stays."
                )
            self._warned = True
        self._last = time.perf_counter()
        self._cost = self._last - started

    def discard(self) -> None:
        """Nothing is to go on from here."""
        checkpoint.remove_all(self._folder)


def _named(runtime: Mapping[str, Any]) -> str:
    """One process's; where there are several, "others" has the rest."""
    if others := runtime.get("others"):
        return " and ".join(map(_named, [{**runtime, "others": []}, *others]))
    threads = f", {runtime['threads']} threads" if runtime.get("threads") else ""
    held = f", {runtime['residence']} weights" if runtime.get("residence") else ""
    return f"{runtime['device']} ({runtime['blas']}{threads}{held})"
