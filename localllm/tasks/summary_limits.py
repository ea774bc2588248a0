"""How much text fits a prompt, and how long answers may be, for a model and its context."""

from __future__ import annotations

from dataclasses import replace

from localllm.errors import UsageError
from localllm.tasks.summary_plan import Limits, Strategy
from localllm.tasks.summary_prompts import PART_TOKENS, Prompts
from localllm.tasks.summary_writer import Writer
from localllm.types import Sampling

_SMALLEST_PART = 48  # tokens; below this a summary is as long as what it sums up
_SPARE = 8  # tokens may join differently at the borders of the text


def limits_for(
    writer: Writer, prompts: Prompts, sampling: Sampling, part_tokens: int | None, overlap: int, strategy: Strategy
) -> Limits:
    """Room for text beside the longest instruction and the answer; two summaries always fit one prompt.

    Raises UsageError where next to nothing is left, TemplateError for a model without a chat template.
    """
    n_ctx = writer.n_ctx
    room = n_ctx - _longest_frame(writer, prompts) - _SPARE
    part = min(sampling.max_tokens or PART_TOKENS, max(room, 0) // 4)
    final = min(sampling.max_tokens or prompts.wish.max_tokens(), max(room, 0) // 4)
    text = min(room - max(part, final), part_tokens or room)
    refine = min(text, room - max(part, final) - part) if strategy == "refine" else text
    least = min(text, refine)
    if least < _SMALLEST_PART:
        message = f"A context of {n_ctx} tokens leaves {max(least, 0)} for the text of a part, too few to summarize."
        raise UsageError(message, "Raise --ctx or --part-tokens, or use a model with a longer context.")
    if overlap < 0 or overlap > least // 2:
        raise UsageError(
            f"--overlap {overlap} is not within half of a part's {least} tokens.", f"Take at most {least // 2}."
        )
    part = max(8, min(part, text // 2 - 2))
    free = replace(sampling, max_tokens=part, grammar=None, json_schema=None)
    return Limits(text, refine, overlap, free, replace(sampling, max_tokens=max(8, final)))


def _longest_frame(writer: Writer, prompts: Prompts) -> int:
    """Tokens of the longest prompt when no text is in it."""
    empty = [prompts.text("", final=final) for final in (False, True)]
    empty += [prompts.combine([], final=final) for final in (False, True)]
    empty += [prompts.refine("", "", final=final) for final in (False, True)]
    return max(writer.count_prompt(prompt) for prompt in empty)
