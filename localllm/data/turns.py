"""Lists of turns to Messages: OpenAI's roles with their tool calls, and ShareGPT's from and value."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from localllm.types import Message, Role

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
SPEAKERS: dict[str, Role] = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "model": "assistant", "bot": "assistant", "function_call": "assistant", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
_KEPT = ("tool_call_id", "name", "reasoning_content")


class BadRowError(ValueError):
    """What is wrong with a row, as a sentence."""


def chat_turns(value: Any, key: str = "messages") -> tuple[Message, ...]:
    """OpenAI's {"role", "content"}. Raises BadRowError."""
    return _turns(value, key, _chat_turn)


def sharegpt_turns(value: Any, key: str = "conversations") -> tuple[Message, ...]:
    """ShareGPT's {"from", "value"}; lists that have role and content under this key are read as such."""
    return _turns(value, key, _sharegpt_turn)


def check_turns(messages: Sequence[Message]) -> None:
    """Raises BadRowError where there is nothing to learn, or nothing to learn it from."""
    if not any(m.role == "assistant" and (m.content.strip() or "tool_calls" in m.extra) for m in messages):
        raise BadRowError("no turn of the assistant has any text: there is nothing to learn.")
    first = next(m for m in messages if m.role != "system")
    if first.role != "user":
        raise BadRowError(f"the {first.role} speaks first: there is no prompt before it.")


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


def checked_text(value: str, what: str) -> str:
    """Raises BadRowError for text that no tokenizer can take."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise BadRowError(f"{what} holds half of a character ({half}).") from None
    return value


def json_list(value: Any, what: str) -> list[Any]:
    """A list, also one that a table holds as text. Raises BadRowError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRowError(f"{what} holds text that is not JSON ({error}).") from None
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else kind_of(value)
        raise BadRowError(f"{what} must be a list of turns, found {found}.")
    return value


def _turns(value: Any, key: str, one: Callable[[dict[str, Any], int], Message]) -> tuple[Message, ...]:
    messages = []
    for number, turn in enumerate(json_list(value, f'"{key}"'), start=1):
        if not isinstance(turn, dict):
            raise BadRowError(f"message {number} must be an object, found {kind_of(turn)}.")
        messages.append(one(turn, number))
    return tuple(messages)


def _chat_turn(turn: dict[str, Any], number: int) -> Message:
    role = turn.get("role")
    if role not in ROLES:
        found = f", found {role!r}" if isinstance(role, str) else ""
        raise BadRowError(f'message {number} needs a "role" ({", ".join(ROLES)}){found}.')
    extra = {key: turn[key] for key in _KEPT if isinstance(turn.get(key), str)}
    if calls := _calls(turn, number):
        extra["tool_calls"] = calls
    content = _content(turn.get("content"), number, optional="tool_calls" in extra)
    return Message(ROLES[role], content, json.dumps(extra, ensure_ascii=False) if extra else "")


def _sharegpt_turn(turn: dict[str, Any], number: int) -> Message:
    if "role" in turn and "content" in turn:
        return _chat_turn(turn, number)
    speaker = turn.get("from")
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        found = f", found {speaker!r}" if isinstance(speaker, str) else ""
        raise BadRowError(f'message {number} needs a "from" ({", ".join(SPEAKERS)}){found}.')
    content = _content(turn.get("value"), number, key="value")
    if str(speaker).lower() == "function_call":
        calls = _calls({"tool_calls": _parsed(content)}, number)
        return Message(role, "", json.dumps({"tool_calls": calls}, ensure_ascii=False))
    return Message(role, content)


def _content(value: Any, number: int, *, key: str = "content", optional: bool = False) -> str:
    if value is None and optional:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        if other := [part for part in value if part.get("type") != "text" or not isinstance(part.get("text"), str)]:
            kind = str(other[0].get("type"))
            raise BadRowError(f"message {number} holds a part of type {kind!r}: only text can be learned.")
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise BadRowError(f'message {number} needs a "{key}" that is text, found {kind_of(value)}.')
    return checked_text(value, f"message {number}")


def _calls(turn: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Tool calls as chat templates read them: arguments as an object, where they are one."""
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    calls = calls if isinstance(calls, list) else [calls]
    kept = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRowError(f'message {number} needs "tool_calls" that each name a function.')
        arguments = _parsed(function.get("arguments", {}))
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        function = {"name": function["name"], "arguments": arguments}
        kept.append({**identity, "type": "function", "function": function})
    return kept


def _parsed(value: Any) -> Any:
    """JSON that was written as text."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return cast(Any, parsed) if isinstance(parsed, dict | list) else value
