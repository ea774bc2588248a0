"""The app's long work: at most one fine-tuning run, one batch and one download at a time. Nothing here draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from localllm.errors import UsageError
from localllm.tui.work.batch import BatchJob
from localllm.tui.work.job import Job, Work
from localllm.tui.work.models import Models
from localllm.tui.work.training import TrainingJob

if TYPE_CHECKING:
    from localllm.store.registry import Registry
    from localllm.tasks.preparing import FinetuneRequest
    from localllm.tasks.previewing import Preview
    from localllm.tasks.summary_here import BatchRequest, Listing
    from localllm.tasks.unfinished import Unfinished


class Jobs:
    """Starts them, holds them, and ends them with the app. The imports are late: the chat opens without them."""

    def __init__(
        self,
        registry: Registry,
        model: str,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        force: bool = False,
    ) -> None:
        """`model` is the one that is proposed; with `force` models are opened that memory does not hold."""
        self.registry, self.model = registry, model
        self.training: TrainingJob | None = None
        self.batch: BatchJob | None = None
        self._n_ctx, self._n_threads, self._force = n_ctx, n_threads, force
        self._ended: Callable[[Job], object] = lambda job: None
        self.library = Models(registry, n_ctx, lambda job: self._ended(job))

    def connect(self, ended: Callable[[Job], object]) -> None:
        """Call this, from the job's thread, when one is over."""
        self._ended = ended

    def models(self) -> list[str]:
        """Names of the models on this machine."""
        return [model.name for model in self.registry.models()] + [m.full_name for m in self.registry.pulled()]

    def adapters(self) -> list[str]:
        """Names of the adapters on this machine."""
        return [adapter.name for adapter in self.registry.adapters()]

    # Fine-tuning

    def preview(self, request: FinetuneRequest) -> Preview:
        """What a run would be; takes a moment. Raises LocalLLMError."""
        from localllm.tasks.previewing import preview

        return preview(self.registry, request)

    def unfinished(self) -> list[Unfinished]:
        """Runs that were left, and can be gone on with."""
        from localllm.tasks.unfinished import unfinished

        return unfinished(self.registry.home)

    def discard(self, name: str) -> None:
        """Remove a run that was left. Raises StorageError."""
        from localllm.tasks.unfinished import forget

        forget(self.registry.home, name)

    def train(self, request: FinetuneRequest) -> TrainingJob:
        """Begin a run, or go on with one. Raises UsageError while another is going on."""
        if self.training is not None and not self.training.over:
            raise UsageError(f"The run {self.training.name!r} is going on.", "Pause it first, or wait until it ends.")
        job = TrainingJob(request, self._finetuning(request))
        if request.resume:
            from localllm.tasks.unfinished import curves_so_far

            job.train, job.validation = curves_so_far(self.registry.home, request.name)
        self.training = job
        job.start(self._ended)
        return job

    def keep_best(self) -> None:
        """Have the run that is going on end with the best so far. Raises StorageError."""
        from localllm.tasks.unfinished import ask_to_finish

        if self.training is not None and not self.training.over:
            ask_to_finish(self.registry.home.runs / self.training.name)
            self.training.finishing = True
            self.training.version += 1

    # Summaries

    def listing(self, request: BatchRequest) -> Listing:
        """What a batch would read."""
        from localllm.tasks.summary_here import listing

        return listing(request.paths)

    def left(self) -> BatchRequest | None:
        """A batch that did not come to its end."""
        from localllm.tasks.summary_here import left

        return left(self.registry.home)

    def forget_batch(self) -> None:
        """Do not offer to go on with it."""
        from localllm.tasks.summary_here import forget

        forget(self.registry.home)

    def summarize(self, request: BatchRequest, sources: list[str]) -> BatchJob:
        """Begin a batch, or go on with one. Raises UsageError while another is going on."""
        if self.batch is not None and not self.batch.over:
            raise UsageError("A batch is going on.", "Stop it first, or wait until it ends.")
        self.batch = BatchJob(request, sources, self._summarizing(request))
        self.batch.start(self._ended)
        return self.batch

    # Ending

    def close(self) -> list[str]:
        """End what is going on, with what is done kept; what to say of it, a line for each."""
        self._ended = lambda job: None
        jobs = (self.training, self.batch, self.library.download)
        going = [job for job in jobs if job is not None and not job.over]
        for job in going:
            job.stop()
        for job in going:
            job.join()
        return [f"{job.name}: {job.error}" for job in going if job.error is not None]

    def _finetuning(self, request: FinetuneRequest) -> Work:
        from localllm.tasks.finetune import finetune

        return lambda cancel: finetune(self.registry, request, cancel)

    def _summarizing(self, request: BatchRequest) -> Work:
        from localllm.tasks.summary_here import summarize_here

        how = {"n_ctx": self._n_ctx, "n_threads": self._n_threads}
        return lambda cancel: summarize_here(self.registry, request, cancel, force=self._force, **how)
