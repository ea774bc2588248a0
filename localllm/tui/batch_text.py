"""What the batch screen says: what would be read, how far it is, and a summary with its parts. Cleaned here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from textual.content import Content

from localllm.sanitize import sanitize, sanitize_line
from localllm.tui.finetune_text import clock, problem
from localllm.tui.work.batch import BatchJob, DocumentState

if TYPE_CHECKING:
    from localllm.tasks.summary_here import Listing

MOST_SHOWN = 200
BAR = 20
PART_CHARACTERS = 3000
"""Of a part's own text that are shown."""


def size(count: float) -> str:
    """Bytes as a person reads them, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def listing_text(found: Listing) -> Content:
    """What would be read."""
    if not found.count:
        return Content.styled("Nothing that can be read was found there.", "bold $error")
    head = f"{found.count} file{'s' * (found.count != 1)}, {size(found.bytes)}"
    lines = [Content.styled(head, "bold $success")]
    passed = [f"{found.hidden} hidden"] * (found.hidden > 0) + [f"{found.other} of other kinds"] * (found.other > 0)
    if passed:
        lines.append(Content.styled(f"passed over: {', '.join(passed)}", "dim"))
    for name, count in found.files[:MOST_SHOWN]:
        said = size(count) if count is not None else "not there"
        lines.append(Content.assemble((f"{said:>9}  ", "dim"), sanitize_line(name)))
    if found.count > MOST_SHOWN:
        lines.append(Content(f"… and {found.count - MOST_SHOWN} more"))
    return Content("\n").join(lines)


def status_line(job: BatchJob) -> str:
    """How the batch stands, in a word or two."""
    if job.status == "running" and not job.totals.parts and not job.totals.documents:
        return "opening the model …"
    words = {"running": "summarizing …", "stopping": "stopping …", "done": "done", "stopped": "stopped"}
    return words.get(job.status, "failed")


def numbers(job: BatchJob) -> Content:
    """A bar, and how far, how fast, how long still."""
    t = job.totals
    share = min(t.documents / t.of, 1.0) if t.of else 0.0
    filled = round(share * BAR)
    parts = [f"{t.documents} of {t.of} documents", f"{t.parts} parts"]
    if t.failed:
        parts.append(f"{t.failed} FAILED")
    if t.tokens_per_second:
        parts.append(f"{t.tokens_per_second:.0f} tokens/s")
    if t.left is not None and job.status == "running":
        parts.append(f"{clock(t.left)} left")
    return Content.assemble(("█" * filled, "$primary"), ("░" * (BAR - filled), "dim"), " ", " · ".join(parts))


def state_of(document: DocumentState, job: BatchJob) -> str:
    """One document's, in words."""
    if document.row is not None:
        return "FAILED" if document.row["error"] else "done"
    if document.combining:
        return "combining"
    if document.parts:
        return f"part {document.parts}/{document.of or '?'}"
    return "not done" if job.over else "waiting"


def first_line(document: DocumentState) -> str:
    """Of the summary, or what went wrong."""
    row = document.row
    return "" if row is None else sanitize_line(row["error"] or _text(row["summary"]))[:400]


def outcome(job: BatchJob) -> Content:
    """What is to be said about the end of a batch, and the last notes."""
    lines = [Content.assemble(("! ", "bold"), sanitize_line(note)) for note in job.notes[-3:]]
    if job.error is not None and job.status == "stopped":
        lines.append(Content(sanitize(job.error.message)))
    elif job.error is not None:
        lines.append(problem(job.error))
    lines.append(Content.styled(sanitize_line(f"output: {job.request.out}"), "dim"))
    return Content("\n").join(lines)


def summary_text(row: dict[str, Any]) -> Content:
    """The summary, or what went wrong, and how it came about."""
    if row["error"]:
        return Content.assemble(("Not summarized: ", "bold $error"), sanitize(str(row["error"])))
    facts = [str(row["model"])] + [f"adapter {row['adapter']}"] * bool(row["adapter"])
    facts += [f"{row['characters']} characters", f"{len(row['parts'])} parts"]
    facts += [f"{row['prompt_tokens']} tokens read, {row['output_tokens']} written"]
    lines = [Content(sanitize(_text(row["summary"]))), Content("")]
    lines += [Content.assemble(("! ", "bold"), sanitize_line(str(warning))) for warning in row["warnings"]]
    return Content("\n").join([*lines, Content.styled(sanitize_line(" · ".join(facts)), "dim")])


def part_title(number: int, part: dict[str, Any]) -> str:
    """Of one part: where it is, and its summary."""
    said = sanitize_line(str(part["summary"]))
    return f"{number}. characters {part['start']} to {part['end']}: {said or 'the model wrote nothing'}"


def part_text(part: dict[str, Any], text: str | None) -> Content:
    """What the source says there."""
    if text is None:
        return Content.styled("The source cannot be shown.", "dim")
    piece = text[part["start"] : part["end"]]
    more = f"\n… {len(piece) - PART_CHARACTERS} more characters" if len(piece) > PART_CHARACTERS else ""
    return Content(sanitize(piece[:PART_CHARACTERS]) + more)


def _text(summary: Any) -> str:
    if isinstance(summary, str):
        return summary
    return "" if summary is None else json.dumps(summary, ensure_ascii=False, indent=2)
