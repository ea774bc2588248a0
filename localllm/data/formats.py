"""Rows to Conversations: which of the usual formats a row is in, and what it says.

chat               {"messages": [{"role", "content", "tool_calls"?}, …], "tools"?}
ShareGPT           {"conversations": [{"from", "value"}, …], "system"?, "tools"?}
self-instruct      {"instruction", "instances": [{"input", "output"}, …]}
prompt/completion  {"prompt", "completion"}, as text or as lists of messages
Alpaca             {"instruction", "input"?, "output"}; Dolly's context and response
question/answer    {"question", "context"?, "answer"}
text               {"text"}
"""

from __future__ import annotations

import json
from typing import Any

from localllm.data.turns import BadRowError, chat_turns, check_turns, checked_text, json_list, kind_of, sharegpt_turns
from localllm.types import Conversation, Message

_PAIRS = {  # format: names of the prompt, of what belongs to it, of the answer
    "prompt/completion": (("prompt",), (), ("completion", "response")),
    "Alpaca": (("instruction",), ("input", "context"), ("output", "response")),
    "question/answer": (("question",), ("context",), ("answer",)),
}
_KEYS = {
    "chat": (("messages",),),
    "ShareGPT": (("conversations", "conversation"),),
    "self-instruct": (("instruction",), ("instances",)),
    **{name: (prompt, answer) for name, (prompt, _, answer) in _PAIRS.items()},
    "text": (("text",),),
}
"""Each format's columns, of each of which a row has at least one of the names."""


def read_row(value: Any, line: int) -> list[Conversation]:
    """The conversations of a row: one, except for self-instruct's instances. Raises BadRowError."""
    if not isinstance(value, dict):
        raise BadRowError(f"expected an object, found {kind_of(value)}.")
    name = format_of_keys(value)
    if not name:
        found = ", ".join(json.dumps(str(key)) for key in list(value)[:5]) or "no keys"
        raise BadRowError(f"expected messages, prompt and completion, instruction and output, or text; found {found}.")
    if name == "text":
        text = _string(value, "text")
        if not text.strip():
            raise BadRowError('"text" is empty.')
        return [Conversation((), text, line, format=name, continues=value.get("continues") is True)]
    tools = _tools(value)
    rows = _instances(value) if name == "self-instruct" else [_messages(name, value)]
    for messages in rows:
        check_turns(messages)
    return [Conversation(messages, None, line, tools, name) for messages in rows]


def format_of_keys(row: dict[str, Any]) -> str:
    """The first format whose columns are all there, else the first with one of them, else nothing."""
    for test in (all, any):
        for name, columns in _KEYS.items():
            if test(any(key in row for key in names) for names in columns):
                return name
    return ""


def _messages(name: str, row: dict[str, Any]) -> tuple[Message, ...]:
    if name == "chat":
        return chat_turns(row["messages"])
    if name == "ShareGPT":
        key = _first(row, _KEYS[name][0])
        return _with_system(row, sharegpt_turns(row[key], key))
    prompt_names, more_names, answer_names = _PAIRS[name]
    prompt, answer = _first(row, prompt_names), _first(row, answer_names)
    if isinstance(row.get(prompt), list) and isinstance(row.get(answer), list):
        return (*chat_turns(row[prompt], prompt), *chat_turns(row[answer], answer))
    asked = _string(row, prompt)
    if row.get(more := _first(row, more_names)):
        asked = f"{asked}\n\n{_string(row, more)}" if asked else _string(row, more)
    answered = _string(row, answer)
    if not answered.strip():
        raise BadRowError(f'"{answer}" is empty: there is nothing to learn.')
    return _with_system(row, (Message("user", asked), Message("assistant", answered)))


def _instances(row: dict[str, Any]) -> list[tuple[Message, ...]]:
    if "instances" not in row:
        raise BadRowError('"instances" is missing.')
    found = []
    for number, instance in enumerate(json_list(row["instances"], '"instances"'), start=1):
        if not isinstance(instance, dict):
            raise BadRowError(f"instance {number} must be an object, found {kind_of(instance)}.")
        try:
            found.append(_messages("Alpaca", {**instance, "instruction": row.get("instruction")}))
        except BadRowError as error:
            raise BadRowError(f"instance {number}: {error}") from None
    return found


def _with_system(row: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A column "system" in front, unless the turns begin with one."""
    if not row.get("system") or messages[0].role == "system":
        return messages
    return (Message("system", _string(row, "system")), *messages)


def _tools(row: dict[str, Any]) -> str:
    """The row's functions as a JSON list in OpenAI's form, or nothing."""
    key = _first(row, ("tools", "functions"))
    if not row.get(key):
        return ""
    tools = json_list(row[key], f'"{key}"')
    if not all(isinstance(tool, dict) for tool in tools):
        raise BadRowError(f'"{key}" must be a list of objects.')
    wrapped = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    return json.dumps(wrapped, ensure_ascii=False)


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """The name that the row has, or else the usual one."""
    return next((name for name in names if name in row), names[0] if names else "")


def _string(row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise BadRowError(f'"{key}" is missing.')
    if not isinstance(row[key], str):
        raise BadRowError(f'"{key}" must be text, found {kind_of(row[key])}.')
    return checked_text(row[key], f'"{key}"')
