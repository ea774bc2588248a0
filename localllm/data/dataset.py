"""Training rows: JSON Lines, or one JSON array, in the usual formats; errors say the line and what was expected.

{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
{"prompt": "…", "completion": "…"}
{"instruction": "…", "input": "… (may be empty)", "output": "…"}
{"text": "…"}
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from localllm.errors import DataError
from localllm.types import Conversation, Message, Role

_Bad = Callable[[str], DataError]
_BETWEEN = re.compile(r"[\s,]*")
ROLES = ("system", "user", "assistant", "tool")
EXPECTED = 'A row is {"messages": […]}, {"prompt", "completion"}, {"instruction", "input", "output"} or {"text"}.'


def read_dataset(path: Path) -> list[Conversation]:
    """Every row of a .jsonl file or of a .json array. Raises DataError with the line at the first bad row."""
    text = _read_text(path)
    rows = _array_rows(path, text) if text.lstrip().startswith("[") else _line_rows(path, text)
    conversations = [_conversation(path, line, row) for line, row in rows]
    if not conversations:
        raise DataError("there are no rows.", EXPECTED, path=path)
    return conversations


def split(rows: Sequence[Conversation], seed: int, share: float = 0.1) -> tuple[list[Conversation], list[Conversation]]:
    """(training rows, validation rows): a tenth, at least one, chosen by the seed; both keep the file's order.

    Raises DataError when there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError("one row cannot be both trained on and held out.", "Add rows, or give --valid FILE.")
    n = max(1, round(len(rows) * share))
    held = set(random.Random(seed).sample(range(len(rows)), n))
    train = [row for i, row in enumerate(rows) if i not in held]
    return train, [rows[i] for i in sorted(held)]


def format_of(row: Conversation) -> str:
    """What is said of a dataset by its first row: "text" or "conversations"."""
    return "conversations" if row.text is None else "text"


def _read_text(path: Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError("there is no such file.", "Check the path.", path=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder.", "Give one .jsonl file.", path=path) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError("not UTF-8 text.", "Save the file as UTF-8.", path=path, line=line) from None
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}.", path=path) from error
    if not text.strip():
        raise DataError("the file is empty.", EXPECTED, path=path)
    return text


def _line_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    # split("\n"), not splitlines(): JSON strings may hold U+2028 and the like
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise DataError(
                    f"not JSON ({reason}).", f"Each line holds one row. {EXPECTED}", path=path, line=number
                ) from None


def _array_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Elements of a JSON array, each with the line that it begins on."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        reason, at = (error.msg, error.lineno) if isinstance(error, json.JSONDecodeError) else (str(error), 1)
        raise DataError(f"not a JSON array of rows ({reason}).", EXPECTED, path=path, line=at) from None
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        gap = _BETWEEN.match(text, position)
        position = gap.end() if gap else position
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        row, position = decoder.raw_decode(text, position)
        yield line, row


def _conversation(path: Path, line: int, row: Any) -> Conversation:
    def bad(problem: str) -> DataError:
        return DataError(problem, EXPECTED, path=path, line=line)

    if not isinstance(row, dict):
        raise bad(f"expected an object, found {_kind(row)}.")
    if "messages" in row:
        return Conversation(_messages(row["messages"], bad), None, line)
    for keys in (("prompt", "completion"), ("instruction", "output")):
        if any(key in row for key in keys):
            first, last = (_string(row, key, bad) for key in keys)
            if row.get("input"):
                first = f"{first}\n\n{_string(row, 'input', bad)}"
            if not last.strip():
                raise bad(f'"{keys[1]}" is empty: there is nothing to learn.')
            return Conversation((Message("user", first), Message("assistant", last)), None, line)
    if "text" in row:
        text = _string(row, "text", bad)
        if not text.strip():
            raise bad('"text" is empty.')
        return Conversation((), text, line)
    found = ", ".join(json.dumps(str(key)) for key in list(row)[:5]) or "no keys"
    raise bad(f"expected messages, prompt and completion, instruction and output, or text; found {found}.")


def _messages(value: Any, bad: _Bad) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise bad(f'"messages" must be a list of turns, found {_kind(value)}.')
    messages = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise bad(f'message {number} needs a "role" ({", ".join(ROLES)}).')
        if not isinstance(turn.get("content"), str):
            raise bad(f'message {number} needs a "content" that is text, found {_kind(turn.get("content"))}.')
        messages.append(Message(cast(Role, turn["role"]), turn["content"]))
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise bad("no turn of the assistant has any text: there is nothing to learn.")
    return tuple(messages)


def _string(row: dict[str, Any], key: str, bad: _Bad) -> str:
    if key not in row:
        raise bad(f'"{key}" is missing.')
    if not isinstance(row[key], str):
        raise bad(f'"{key}" must be text, found {_kind(row[key])}.')
    return str(row[key])


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
