"""What the conversation store takes and gives."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from localllm.types import Role, Sampling

TurnState = Literal["complete", "writing", "stopped", "cut"]
"""`writing`: a reply on its way; `cut`: ended by an error, a crash or a limit; `stopped`: by the person."""


@dataclass(frozen=True)
class ChatSettings:
    """What a conversation is answered with. Empty fields leave it to the program's own settings."""

    model: str = ""
    adapter: str | None = None
    system: str | None = None
    sampling: Sampling | None = None
    first: str = ""
    """`uid` of the first turn that is sent to the model, where the person had older ones left out."""
    summary: str = ""
    """What stands in for the turns left out."""
    handbook: bool | None = None
    """Whether messages are looked up in the handbook first; None leaves it to the model."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ChatSettings:
        """Fields that this version does not know are left out, and values of a wrong type too."""
        try:
            table = json.loads(text)
        except ValueError:
            return cls()
        table = table if isinstance(table, dict) else {}
        given = {name: table.get(name) for name in ("model", "adapter", "system", "first", "summary")}
        texts: dict[str, Any] = {name: value for name, value in given.items() if isinstance(value, str)}
        handbook = table.get("handbook")
        return cls(
            **texts, sampling=_sampling(table.get("sampling")), handbook=handbook if type(handbook) is bool else None
        )


def _sampling(table: Any) -> Sampling | None:
    if not isinstance(table, dict):
        return None
    values: dict[str, Any] = {}
    for field in fields(Sampling):
        value, default = table.get(field.name), field.default
        if field.name == "logit_bias":
            continue  # token ids mean nothing for another model
        if field.name == "stop" and isinstance(value, list):
            values["stop"] = tuple(text for text in value if isinstance(text, str))
        elif field.name in ("grammar", "json_schema"):
            values[field.name] = value if isinstance(value, str) else None
        elif field.name == "max_tokens":
            values["max_tokens"] = value if type(value) is int else None
        elif isinstance(value, int | float) and isinstance(default, int | float):
            values[field.name] = type(default)(value)
    return Sampling(**values)


@dataclass(frozen=True)
class ReplyStats:
    """What a reply cost, as it is shown under it. Times are seconds."""

    tokens: int = 0
    tokens_per_second: float = 0.0
    first_token: float = 0.0
    """From sending to the first token."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReplyStats:
        try:
            table = json.loads(text)
            return cls(int(table["tokens"]), float(table["tokens_per_second"]), float(table["first_token"]))
        except (ValueError, TypeError, KeyError):
            return cls()


@dataclass(frozen=True)
class ChatRecord:
    """One conversation."""

    id: int
    uid: str
    """Names it on every machine, so that an import knows what is here already."""
    title: str
    created: float
    updated: float
    """Seconds since 1970, as is `created`."""
    pinned: bool
    leaf: int | None
    """The last turn of the branch that is shown."""
    settings: ChatSettings


@dataclass(frozen=True)
class Turn:
    """One message in the tree of a conversation."""

    id: int
    uid: str
    parent: int | None
    role: Role
    content: str
    created: float
    state: TurnState = "complete"
    author: str = ""
    """For a reply: the model, and the adapter if there was one."""
    stats: ReplyStats = ReplyStats()
    siblings: tuple[int, ...] = ()
    """Turns with the same parent, this one among them, oldest first."""
    source: str = ""
    """For a reply: where what it says was looked up, as a line for people."""


@dataclass(frozen=True)
class Found:
    """A place where a search matched: a turn, or the title when `turn` is None."""

    chat: ChatRecord
    turn: int | None
    excerpt: str
    """A line of the text around the match."""
