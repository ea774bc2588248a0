"""Bodies of OpenAI's requests -> what an engine is asked. What would change an answer and cannot be done is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localllm.data.turns import BadRowError, chat_turns, checked_text, kind_of
from localllm.types import Message, Sampling

Body = Mapping[str, Any]
_IGNORED = frozenset(
    {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options"}
)
"""Fields that do not change what is answered; the model is the one that was loaded."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stream": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "encoding_format": ("float", "base64"),
}
"""Fields that are understood with these values only."""


_MOST = 2**31 - 1
"""Native code holds whole numbers of 32 bits."""


class BadBodyError(ValueError):
    """What is wrong with a body, as a sentence."""


@dataclass(frozen=True)
class Chat:
    """A conversation to go on with."""

    messages: tuple[Message, ...]
    tools: str
    """A JSON list of the functions, or nothing."""
    sampling: Sampling


@dataclass(frozen=True)
class Texts:
    """What to embed: texts, or the tokens of texts."""

    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool
    """Whether each vector is wanted as the base64 of its little-endian float32."""


def chat(body: Body) -> Chat:
    """The body of a chat completion. Raises BadBodyError."""
    given = {key: value for key, value in body.items() if value is not None}
    known = {"messages", "tools", "tool_choice", "response_format", "stop", "logit_bias", *_LIMITS, *_NUMBERS}
    _check_fields(given, known)
    try:
        messages = chat_turns(given.get("messages"))
    except BadRowError as error:
        raise BadBodyError(_sentence(str(error))) from None
    numbers = {ours: read(theirs, given[theirs]) for theirs, (ours, read) in _NUMBERS.items() if theirs in given}
    limits = [_whole(name, given[name]) for name in _LIMITS if name in given]
    sampling = Sampling(
        **numbers,
        max_tokens=min(limits, default=None),
        stop=_stop(given.get("stop", [])),
        logit_bias=_logit_bias(given.get("logit_bias", {})),
        json_schema=_schema(given.get("response_format", {"type": "text"})),
    )
    return Chat(messages, _tools(given), sampling)


def texts(body: Body) -> Texts:
    """The body of an embeddings request. Raises BadBodyError."""
    given = {key: value for key, value in body.items() if value is not None}
    _check_fields(given, {"input"})
    value = given.get("input")
    items = value if isinstance(value, list) and value and not _is_tokens(value) else [value]
    return Texts(tuple(_input(item) for item in items), given.get("encoding_format") == "base64")


def _input(item: Any) -> str | tuple[int, ...]:
    if isinstance(item, str) and item:
        return checked(item, '"input"')
    if isinstance(item, list) and _is_tokens(item):
        return tuple(item)
    raise BadBodyError('"input" must be text, a list of texts or of token ids, and none may be empty.')


def checked(text: str, what: str) -> str:
    """Raises BadBodyError for text that no tokenizer can take."""
    try:
        return checked_text(text, what)
    except BadRowError as error:
        raise BadBodyError(str(error)) from None


def _check_fields(given: Body, known: set[str]) -> None:
    for name, value in given.items():
        if name in known or name in _IGNORED:
            continue
        if name not in _NEUTRAL:
            raise BadBodyError(f'"{name}" is not supported here.')
        if not any(value == allowed and type(value) is type(allowed) for allowed in _NEUTRAL[name]):
            wanted = " or ".join(json.dumps(allowed) for allowed in _NEUTRAL[name])
            raise BadBodyError(f'"{name}" is supported as {wanted} only.')


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadBodyError(f'"{name}" must be a number, found {kind_of(value)}.')
    if not -_MOST <= value <= _MOST:  # nor infinite, nor not a number
        raise BadBodyError(f'"{name}" must lie between {-_MOST} and {_MOST}, found {value}.')
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadBodyError(f'"{name}" must be a whole number, found {kind_of(value)}.')
    if not -_MOST <= value <= _MOST:
        raise BadBodyError(f'"{name}" must lie between {-_MOST} and {_MOST}, found {value}.')
    return value


def _seed(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadBodyError(f'"{name}" must be a whole number, found {kind_of(value)}.')
    return value & 0xFFFFFFFF


_LIMITS = ("max_tokens", "max_completion_tokens")
_NUMBERS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "temperature": ("temperature", _number),
    "top_p": ("top_p", _number),
    "top_k": ("top_k", _whole),
    "min_p": ("min_p", _number),
    "repeat_penalty": ("repeat_penalty", _number),
    "presence_penalty": ("presence_penalty", _number),
    "frequency_penalty": ("frequency_penalty", _number),
    "seed": ("seed", _seed),
}
"""Their names to the fields of Sampling; top_k, min_p and repeat_penalty are additions that local servers share."""


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise BadBodyError('"stop" must be text or a list of texts.')
    return tuple(checked(stop, '"stop"') for stop in stops)


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or not all(token.isdecimal() and len(token) < 12 for token in value):
        raise BadBodyError('"logit_bias" must be an object from token ids to numbers.')
    return tuple((_whole("logit_bias", int(token)), _number("logit_bias", bias)) for token, bias in value.items())


def _schema(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    described = value.get("json_schema") if isinstance(value, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise BadBodyError('"response_format" must be of type text, json_object, or json_schema with its "schema".')
    return json.dumps(schema)


def _tools(given: Body) -> str:
    tools, choice = given.get("tools", []), given.get("tool_choice", "auto")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and "function" in tool for tool in tools):
        raise BadBodyError('"tools" must be a list of functions.')
    if choice not in ("auto", "none"):
        raise BadBodyError('"tool_choice" is supported as "auto" or "none" only.')
    return json.dumps(tools, ensure_ascii=False) if tools and choice == "auto" else ""


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(token, int) and not isinstance(token, bool) for token in value)


def _sentence(text: str) -> str:
    return text.replace("only text can be learned", "only text can be read")
