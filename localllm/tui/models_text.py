"""What the models screen says of a model, of a download and of a removal. All is cleaned here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from localllm.sanitize import sanitize, sanitize_line
from localllm.tasks.browsing import LANGUAGES, Listed, Verdict
from localllm.tui.batch_text import size
from localllm.tui.finetune_text import clock, problem

if TYPE_CHECKING:
    from localllm.tasks.remote import Offer
    from localllm.tasks.removing import Removal
    from localllm.tui.work.download import DownloadJob

SIGNS: dict[Verdict, tuple[str, str]] = {
    "fits": ("✓ fits", "$success"), "tight": ("≈ tight", "$warning"), "too big": ("✗ too big", "$error"),
    "": ("? unknown", "dim"),
}  # fmt: skip
IN_USE = "● "
BAR = 16
_STATES = {"done": "✓ ready", "stopped": "stopped", "failed": "✗ failed", "stopping": "stopping …"}
_MOST_LANGUAGES = 8


def cells(row: Listed, in_use: bool, width: int) -> list[Content]:
    """Of the table: name, whose, size, weights, context, fit, adapters. `width` is that of the name."""
    name = f"{IN_USE if in_use else ''}{sanitize_line(row.name)}"
    if row.problem:
        fit = Content.styled("! broken", "bold $error")
    else:
        words, style = SIGNS[row.verdict]
        fit = Content.styled(words, style)
    weights = "MLX" if row.format == "mlx" else row.quantization.partition(" ")[0]
    return [
        Content.styled(_middle(name, width), "bold" if in_use else ""), Content.styled(row.whose, "dim"),
        Content(_size(row)), Content(sanitize_line(weights)[:12]), Content(context(row.context)), fit,
        Content(sanitize_line(", ".join(row.adapters))),
    ]  # fmt: skip


def context(tokens: int | None) -> str:
    """4096 as 4k."""
    if tokens is None:
        return ""
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def details(row: Listed, *, in_use: bool, hashed: str, memory: int | None) -> Content:
    """Everything about a row, what matters first."""
    title = sanitize_line(str(row.said("title") or row.name))
    lines = [Content.assemble((title, "bold"), (" · in use in the chat" if in_use else "", "$success"))]
    if row.problem:
        lines.append(Content.assemble(("It cannot be used: ", "bold $error"), sanitize(row.problem)))
    if description := row.said("description"):
        lines.append(Content(sanitize_line(str(description))))
    for name, said in _facts(row, hashed, memory):
        if said:
            lines.append(Content.assemble((f"{name}: ", "dim"), sanitize_line(said)))
    return Content("\n").join(lines)


def _facts(row: Listed, hashed: str, memory: int | None) -> list[tuple[str, str]]:
    where = str(row.path) if row.path else f"{row.repo} on the hub" if row.repo else ""
    labels = f"on this machine as {', '.join(row.labels)}" if row.labels else ""
    return [
        ("Memory", "" if row.problem else memory_line(row, memory)),
        ("Good at", _abilities(row)),
        ("Licence", str(row.said("license") or "")),
        ("Languages", languages(row)),
        ("Adapters", ", ".join(row.adapters)),
        ("Already", labels),
        ("Weights", _weights(row)),
        ("Whose", f"{row.owner}; used in place, never changed or deleted" if row.owner else ""),
        ("Where", where),
        ("SHA-256", (hashed or "h computes it") if row.place == "here" and not row.problem else ""),
    ]


def memory_line(row: Listed, memory: int | None) -> str:
    """What a chat takes, beside what there is."""
    if row.needs is None:
        return "cannot be told" if row.place == "here" else "not known before it is looked up"
    used = f" with {row.n_ctx} tokens of context" if row.n_ctx else ""
    free = f"; {size(memory)} are free" if memory is not None else ""
    about = ", by the number of its weights" if row.about else ""
    return f"a chat takes about {size(row.needs)}{used}{about}{free}: {SIGNS[row.verdict][0]}"


def languages(row: Listed) -> str:
    """In words."""
    codes = [LANGUAGES.get(str(code), str(code)) for code in row.said("languages") or ()]
    more = len(codes) - _MOST_LANGUAGES
    return ", ".join(codes[:_MOST_LANGUAGES]) + (f" and {more} more" if more > 0 else "")


def _abilities(row: Listed) -> str:
    if row.said("tools") is None:
        return ""
    can = ["calling tools"] * bool(row.said("tools")) + ["thinking before it answers"] * bool(row.said("thinking"))
    chats = "cannot chat: it has no template" if row.said("template") is False else "chat, without tools or thinking"
    return " and ".join(can) or chats


def _weights(row: Listed) -> str:
    count = row.said("parameters")
    kind = str(row.said("architecture") or "")
    made = f"context of {row.context} tokens" if row.context else ""
    number = f"{count / 1e9:.2g} billion" if isinstance(count, int | float) and count else ""
    return ", ".join(part for part in (kind, number, row.quantization, _size(row), made) if part)


def _size(row: Listed) -> str:
    return "" if row.bytes is None else f"{'~' if row.about else ''}{_short(row.bytes)}"


def _short(count: float) -> str:
    """Bytes in at most six characters."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _middle(name: str, most: int) -> str:
    """Both ends of a name say most."""
    if len(name) <= most:
        return name
    end = (most - 1) * 2 // 3
    return f"{name[: most - 1 - end]}…{name[-end:]}"


# Choosing and downloading


def choice_lines(row: Listed, recommended: bool) -> tuple[str, str]:
    """A quantization as an answer: its name, and what it takes."""
    advice = " · what is taken unasked" if recommended else ""
    needs = f", needs {size(row.needs)} of memory" if row.needs is not None else ""
    name = "the folder for MLX" if row.format == "mlx" else row.quantization
    return f"{name} · {_size(row)} · {SIGNS[row.verdict][0]}{advice}", f"{_size(row)} to download{needs}"


def switch_lines(row: Listed) -> tuple[str, str]:
    """A model of this machine as an answer, when the chat is to go on with it."""
    if row.problem:
        return f"{row.name} · ! broken", row.problem
    parts = [row.quantization.partition(" ")[0], _size(row), row.whose, memory_line(row, None).partition(":")[0]]
    return f"{row.name} · {SIGNS[row.verdict][0]}", " · ".join(part for part in parts if part)


def offer_text(offer: Offer, memory: int | None) -> str:
    """Above the quantizations."""
    licence = f", licence {offer.repository.license}" if offer.repository.license else ""
    used = f" The memory is for {offer.n_ctx} tokens of context." if offer.n_ctx else ""
    free = f" {size(memory)} are free here." if memory is not None else ""
    return f"{offer.repository.repo}{licence}.{free}{used}"


def download_lines(job: DownloadJob) -> Content:
    """Two lines: all of it, and the file that is on its way."""
    share = min(job.done / job.total, 1.0) if job.total else 0.0
    filled = round(share * BAR)
    words = [_STATES.get(job.status, job.doing)]
    if job.status == "running" and job.bytes_per_second:
        words.append(f"{size(job.bytes_per_second)}/s")
        words += [f"{clock(job.left)} left"] if job.left is not None else []
    first = Content.assemble((sanitize_line(job.name), "bold"), "  ", " · ".join(words))
    if not job.total or job.over:
        return Content("\n").join([first, _second(job)])
    amount = f" {share:.0%} {size(job.done)} of {size(job.total)}  "
    bar = (("█" * filled, "$primary"), ("░" * (BAR - filled), "dim"))
    return Content("\n").join([first, Content.assemble(*bar, amount, _second(job))])


def _second(job: DownloadJob) -> Content:
    """What is happening to a file; what went wrong; or where it is now."""
    if job.error is not None and job.status == "failed":
        return problem(job.error)
    if job.status == "stopped":
        return Content(f"{size(job.done)} of {size(job.total)} have arrived and are kept; r goes on from there.")
    if job.status == "done":
        checked = "and checked against the hub's hashes" if job.checked else "as it was pulled before"
        return Content.styled(f"It is here, {checked}.", "dim")
    if job.trouble:
        return Content.assemble(("! ", "bold"), sanitize_line(job.trouble))
    if not job.files:
        return Content("")
    name, (done, total) = job.current, job.files.get(job.current, (0, 0))
    which = f"file {job.number} of {job.count}: " if job.count > 1 else ""
    part = f" {done / total:.0%}" if total else ""
    return Content.styled(sanitize_line(f"{which}{_middle(name.rpartition('/')[2], 32)}{part}"), "dim")


def left_line(name: str) -> str:
    return f"The download of {sanitize_line(name)} was left before it was complete."


# Taking away


def removal_text(removal: Removal) -> str:
    """What would go, and what would break."""
    what = f"Delete the {removal.kind} {sanitize_line(removal.name)} ({size(removal.bytes)})?"
    lines = [what]
    if removal.breaks:
        lines.append(f"! Without it these adapters cannot be used: {sanitize_line(', '.join(removal.breaks))}.")
    return "\n".join(lines)
