"""The values that the rooms hand to each other: frozen, typed, and free of behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "deadline"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    extra: str = ""
    """A JSON object of what else the turn holds for the chat template: tool_calls, tool_call_id, name, reasoning."""


@dataclass(frozen=True)
class ModelRef:
    """A model that has been resolved to a file on this machine."""

    name: str
    """What the person calls it: a card's name, or the file's stem."""
    path: Path
    source: Literal["built-in", "home", "hub", "foreign", "path"]
    """Where it was found: inside the package, in LOCALLLM_HOME/models, pulled into the hub's cache, in what another
    program keeps, or by a path."""
    title: str = ""
    description: str = ""
    chunk_tokens: int | None = None
    """The part size, in tokens, that its card recommends for summaries."""
    sampling: dict[str, float] = field(default_factory=dict)
    """Sampling settings that its card recommends for chat."""
    system: str = ""
    """The system prompt that it comes with, for chats that have none."""
    stop: tuple[str, ...] = ()
    """Texts before which its answers stop."""
    template: str = ""
    """The name of one of our chat templates, where its file holds none."""
    adapters: tuple[Path, ...] = ()
    """GGUF LoRAs that belong to it and are always attached."""
    notes: tuple[str, ...] = ()
    """What it comes with that cannot be used here, in sentences."""


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that has been resolved to a GGUF LoRA file on this machine."""

    name: str
    path: Path
    base_sha256: str | None = None
    """Content hash of the GGUF it was trained on; None for a bare file that does not say."""
    scale: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The defaults are greedy, so the same prompt gives the same answer.

    The stages run in llama.cpp's order: logit bias, penalties, top-k, top-p, min-p, temperature, then a draw.
    """

    temperature: float = 0.0
    """0 takes the likeliest token; higher is more varied."""
    top_k: int = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities sum to p; 1 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the likeliest one."""
    repeat_penalty: float = 1.0
    """Divide the logits of recent tokens by this; 1 is off."""
    presence_penalty: float = 0.0
    """Subtract this once from the logit of every recent token."""
    frequency_penalty: float = 0.0
    """Subtract this from a recent token's logit for each time it occurred."""
    penalty_last_n: int = 64
    """How many recent tokens the three penalties look at."""
    max_tokens: int | None = None
    """Stop after this many new tokens; None goes on until the model ends or the context is full."""
    stop: tuple[str, ...] = ()
    """Stop before any of these texts."""
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit) pairs; -inf bars a token."""
    grammar: str | None = None
    """A GBNF grammar that the answer must match."""
    json_schema: str | None = None
    """A JSON schema, as text, that the answer must match; excludes `grammar`."""


@dataclass(frozen=True)
class Usage:
    """What one answer cost. Times are seconds of wall clock."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values were still held from an earlier turn."""
    output_tokens: int
    load_seconds: float = 0.0
    prefill_seconds: float = 0.0
    """From the start of the request to the first token; the time to first token."""
    decode_seconds: float = 0.0
    drafted_tokens: int = 0
    """Tokens that were guessed from the text so far, to be checked together."""
    accepted_tokens: int = 0
    """Of them, those that were right."""

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second of decoding, 0 when nothing was decoded."""
        return self.output_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Chunk:
    """A part of a document: characters `start` to `end` (exclusive) and the tokens they take."""

    start: int
    end: int
    text: str
    tokens: int


@dataclass(frozen=True)
class Example:
    """One training row as the model sees it."""

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    """mask[i] is true where tokens[i] is to be predicted (counts in the loss)."""
    line: int = 0
    """Line of the dataset it came from, from 1."""


@dataclass(frozen=True)
class Conversation:
    """One dataset row as messages; `text` instead of messages for plain-text rows."""

    messages: tuple[Message, ...]
    text: str | None
    line: int
    tools: str = ""
    """A JSON list of the functions that the assistant may call, or nothing."""
    format: str = ""
    """The format that the row was written in, as it is said to a person."""
    continues: bool = False
    """The text goes on in the next row: nothing ends it here."""
