"""What the fine-tune screen says: the checker's report, how a run stands, and its verdict. All is cleaned here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize, sanitize_line
from localllm.tui.widgets.losscurve import MARK
from localllm.tui.work.training import PHASES, TrainingJob

if TYPE_CHECKING:
    from localllm.tasks.finetune import Done
    from localllm.tasks.previewing import Preview

MOST_FINDINGS = 8


def clock(seconds: float) -> str:
    """1:05, 2:00:09."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def problem(error: LocalLLMError) -> Content:
    """An error with its hint."""
    lines = Content.assemble(("Error: ", "bold $error"), sanitize(error.message))
    return Content.assemble(lines, "\n→ ", sanitize(error.hint)) if error.hint else lines


def report_text(preview: Preview) -> Content:
    """The checker's report, what the settings come to, and whether it fits."""
    report = preview.report
    style = "bold $error" if report.unusable or preview.problem else "bold $success"
    lines = [Content.styled(sanitize(report.verdict), style)]
    formats = ", ".join(f"{count} {name}" for name, count in report.formats.items()) or "nothing that can be read"
    lines.append(Content(sanitize_line(f"{formats}; {report.kind}, {report.rows} rows can be used")))
    if report.lengths is not None:
        total, learned = report.lengths.total, report.lengths.learned
        lines.append(
            Content(f"{total['p50']} tokens a row in the middle, {total['max']} at most; {learned} are learned")
        )
    findings = [*report.unusable, *report.findings]
    lines += [Content.assemble(("! ", "bold"), sanitize_line(f.message)) for f in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        lines.append(Content(f"… and {len(findings) - MOST_FINDINGS} more: `localllm data check` has all"))
    lines += [Content(""), *_plan(preview)]
    return Content("\n").join(lines)


def _plan(preview: Preview) -> list[Content]:
    if preview.problem is not None:
        return [problem(preview.problem)]
    c, fit = preview.config, preview.fit
    assert c is not None
    assert fit is not None
    lines = [
        Content(f"{preview.rows} rows to learn, {preview.held_out} held out; {preview.steps} steps"),
        Content(f"{c.epochs} epochs of {c.batch_size} rows, rank {c.rank}, learning rate {c.learning_rate:g}"),
    ]
    need, have = fit.footprint.total / 1e9, fit.available / 1e9
    verdict = ("fits", "bold $success") if fit.fits else ("does NOT fit", "bold $error")
    lines.append(Content.assemble(f"Memory: about {need:.2f} GB of {have:.2f} GB that may be used: ", verdict))
    if not fit.fits and fit.suggestion is not None:
        lines.append(Content(f"→ This would fit: {fit.as_options()}"))
    return lines


def status_line(job: TrainingJob) -> str:
    """How the run stands, in a few words."""
    if job.status == "running":
        return "ending with the best …" if job.finishing and job.phase == PHASES[2] else f"{job.phase} …"
    return {"stopping": "saving …", "done": "done", "stopped": "paused", "failed": "failed"}[job.status]


def numbers(job: TrainingJob) -> Content:
    """One line: how far, how fast, how long still."""
    parts = [f"step {job.step} of {job.steps}"] if job.steps else []
    if job.epochs:
        parts.append(f"epoch {max(job.epoch, 1)} of {job.epochs}")
    if job.tokens_per_second:
        parts.append(f"{job.tokens_per_second:.0f} tokens/s")
    if job.left is not None and job.status == "running":
        parts.append(f"{clock(job.left)} left")
    if job.trained is None and (job.peak_mb or job.memory):
        parts.append(_memory(job))
    if job.trained is not None:
        parts.append(f"{job.trained.peak_rss_mb:.0f} MB at most")
    if job.phase in PHASES[3:] and job.status == "running" and job.checked[1]:
        parts.append(f"{job.phase}: {job.checked[0]} of {job.checked[1]}")
    return Content(" · ".join(parts))


def _memory(job: TrainingJob) -> str:
    """The most that was held so far; before the first step, what it was estimated to be."""
    if job.peak_mb:
        return f"memory {job.peak_mb:.0f} MB" if job.peak_mb < 1000 else f"memory {job.peak_mb / 1000:.1f} GB"
    return f"about {job.memory / 1e6:.0f} MB"


def legend(job: TrainingJob) -> Content:
    """Which curve is which, with the last losses."""
    train = f" train {job.train[-1][1]:.3f}" if job.train else " train"
    validation = f" validation {job.validation[-1][1]:.3f}" if job.validation else " validation"
    best = f" · best {job.best[1]:.3f}, {_epoch(job.best[0])}" if job.best else ""
    return Content.assemble("loss  ", ("⠒⠒", "$primary"), train, "   ", (MARK, "bold $accent"), validation, best)


def _epoch(number: int) -> str:
    return f"after epoch {number}" if number else "before training"


def outcome(job: TrainingJob) -> Content:
    """What is to be said about the end of a run, and what was noted on the way."""
    lines: list[Content] = []
    if job.done is not None:
        lines += verdict(job.done)
    elif job.error is not None and job.status == "stopped":
        lines.append(Content.assemble(("Paused. ", "bold"), sanitize(job.error.message)))
    elif job.error is not None:
        lines.append(problem(job.error))
    lines += [Content.assemble(("· ", "bold"), sanitize_line(note)) for note in job.notes]
    return Content("\n").join(lines)


def verdict(done: Done) -> list[Content]:
    """Before and after."""
    a = done.agreement
    lines = [
        Content.styled(sanitize(f"The adapter {done.adapter.name} is ready."), "bold $success"),
        Content(f"validation loss {done.base_loss:.3f} before, {done.loss:.3f} after (best epoch {done.best_epoch})"),
    ]
    if done.exact_before is not None and done.exact_after is not None:
        both = f"{done.exact_before:.0%} before, {done.exact_after:.0%} after"
        lines.append(Content(f"exact answers on {done.tested} test rows: {both}"))
    if done.verdict:
        lines.append(Content(sanitize(done.verdict)))
    lines.append(Content(f"verified in llama.cpp: mean KL {a.kl:.1e}; effect cosine {a.effect_cosine:.4f}"))
    took = f"{clock(done.seconds)}, {done.tokens_per_second:.0f} tokens/s, {done.peak_rss_mb:.0f} MB at most"
    lines.append(Content.styled(took, "dim"))
    if done.report:
        lines.append(Content.styled(sanitize_line(f"report: {done.report}"), "dim"))
    return lines
