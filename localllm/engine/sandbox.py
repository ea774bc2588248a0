"""A Jinja environment in which a stranger's template can neither reach out nor run away.

jinja2's immutable sandbox stops access to Python; it does not bound work. So every line of the template looks at a
deadline, and every operation that could make something huge in one go is checked before it runs.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

import jinja2
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILENAME = "<chat template>"
MAX_TEXT = 16 << 20  # characters of any text that a template makes
_MAX_NUMBER = 1 << 16  # of a width or a count
_MAX_BITS = 4096  # of a product or power
_MAX_DEPTH = 32  # of nested lists; sharing makes the text of deeper ones grow exponentially
_WIDE_FORMAT = re.compile(r"\d{5}|%[^a-zA-Z%]*\*")


class BoundError(Exception):
    """The template passed a bound; the message says which."""


class _BoundedConcat(CodeGenerator):
    """Compiles `a ~ b` to a call that checks the size; jinja2's own joins without looking."""

    @optimizeconst
    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja2 finds visitors by node name
        self.write("environment.concat((")
        for argument in node.nodes:
            self.write("str(")
            self.visit(argument, frame)
            self.write("), ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox with bounds on sizes, and the additions that Hugging Face templates rely on."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})
    code_generator_class = _BoundedConcat

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], finalize=_check_depth)
        self.concat = _bounded_join  # type: ignore[method-assign]
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_binop(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        _check_call(getattr(obj, "__name__", ""), [owner, *args] if isinstance(owner, str) else args, kwargs)
        return super().call(context, obj, *args, **kwargs)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise BoundError from whichever line of the template runs after `seconds`; every turn of a loop runs a line."""
    end = time.monotonic() + seconds

    def in_template(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise BoundError(f"it ran for more than {seconds:g} seconds")
        return in_template

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return in_template if frame.f_code.co_filename == FILENAME else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


def _bounded_join(pieces: Iterable[str]) -> str:
    parts = list(pieces)
    if sum(map(len, parts)) > MAX_TEXT:
        raise BoundError("it builds a text of more than 16 million characters")
    return "".join(parts)


def _check_binop(operator: str, left: Any, right: Any) -> None:
    numbers = isinstance(left, int) and isinstance(right, int)
    if operator == "*" and numbers and left.bit_length() + right.bit_length() > _MAX_BITS:
        raise BoundError("it multiplies numbers that are too large")
    if operator == "**" and numbers and left.bit_length() * abs(right) > _MAX_BITS:
        raise BoundError("it raises a number to a power that is too large")
    if operator == "*" and not numbers:
        for count, sized in ((left, right), (right, left)):
            if isinstance(count, int) and hasattr(sized, "__len__") and count * len(sized) > MAX_TEXT:
                raise BoundError("it repeats a text too often")
    if operator == "%" and isinstance(left, str):
        _check_format(left)
        _check_depth(right)
    if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__") and len(left) + len(right) > MAX_TEXT:
        raise BoundError("it builds a text of more than 16 million characters")


def _check_call(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """`args` begins with the text itself for a method of one, as it does for a filter."""
    if name != "range" and any(isinstance(a, int) and abs(a) > _MAX_NUMBER for a in (*args, *kwargs.values())):
        raise BoundError("it asks for a width or count that is too large")
    text = args[0] if args and isinstance(args[0], str) else ""
    if name in ("format", "format_map", "do_format"):
        _check_format(text)
    if name in ("expandtabs", "translate"):
        raise BoundError(f"it calls {name}, which has no place in a chat template")
    if name in ("replace", "do_replace") and len(args) > 2 and len(text) * len(str(args[2])) > MAX_TEXT * 8:
        raise BoundError("it replaces with a text that is too long")
    for argument in args[1:] if text else args:
        _check_depth(argument)


def _check_format(pattern: str) -> None:
    if _WIDE_FORMAT.search(pattern):
        raise BoundError("it formats to a width that is too large")


def _check_depth(value: Any) -> Any:
    """The value itself, unless lists in it are nested too deeply to be written out."""
    level, seen = [value], set[int]()
    for _ in range(_MAX_DEPTH):
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict | list | tuple) and id(item) not in seen:
                seen.add(id(item))
                children += item.values() if isinstance(item, dict) else item
        if not children:
            return value
        level = children
    raise BoundError("it nests lists too deeply")


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter behind the same checks as a call, keeping the marks by which jinja2 passes it its environment."""
    passes_first = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_call(name, args[passes_first:], kwargs)
        result = function(*args, **kwargs)
        if isinstance(result, str) and len(result) > MAX_TEXT:
            raise BoundError("it builds a text of more than 16 million characters")
        return result

    return guarded


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """As Hugging Face renders it: no HTML escapes, and characters beyond ASCII as they are."""
    return json.dumps(_check_depth(value), ensure_ascii=False, indent=min(indent, 16) if indent else indent)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
