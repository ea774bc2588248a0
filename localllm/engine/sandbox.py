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
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILENAME = "<chat template>"
MAX_TEXT = 16 << 20  # characters of any text that a template makes
_MAX_ITEMS = 100_000  # of any list or mapping, those in it included, each as often as it occurs
_MAX_NUMBER = 1 << 16  # of a width or a count
_MAX_BITS = 4096  # of a product or power
_WIDE_FORMAT = re.compile(r"\d{5}|%[^a-zA-Z%]*\*")


class BoundError(Exception):
    """The template passed a bound; the message says which."""


class _BoundedCode(CodeGenerator):
    """Compiles whatever makes a text or a list to an expression that has its size checked."""

    @optimizeconst
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - visitors are found by this name
        self.write("environment.concat((")
        for argument in node.nodes:
            self.write("str(environment.bounded(")
            self.visit(argument, frame)
            self.write(")), ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._bounded(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._bounded(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._bounded(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _bounded(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.bounded(")
        visit(node, frame)
        self.write(")")


class _Generation(Extension):
    """`{% generation %}`, with which some templates mark what training looks at: here its body alone counts."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox with bounds on sizes, and the additions that Hugging Face templates rely on."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})
    code_generator_class = _BoundedCode

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        self.concat = _bounded_join  # type: ignore[method-assign]
        self.bounded = _bounded
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_binop(operator, left, right)
        return _bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        _check_call(getattr(method, "__name__", ""), [owner, *args] if isinstance(owner, str) else args, kwargs)
        return _bounded(super().call(context, obj, *args, **kwargs))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise BoundError once `seconds` have passed: from any line of the template, or any call of Python code in it.

    Every turn of a template's loop runs a line; what jinja2's own filters do at length, they do in calls.
    """
    end = time.monotonic() + seconds

    def check(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise BoundError(f"it ran for more than {seconds:g} seconds")
        return check if frame.f_code.co_filename == FILENAME else None

    before = sys.gettrace()
    sys.settrace(check)
    try:
        yield
    finally:
        sys.settrace(before)


def _bounded_join(pieces: Iterable[str]) -> str:
    return "".join(_bounded(list(pieces)))


def _bounded(value: Any) -> Any:
    """The value itself, unless writing it out would take more than the bounds allow.

    Items are counted as often as they occur: sharing lets a few nested lists stand for billions of items.
    """
    if not isinstance(value, str | dict | list | tuple):
        return value
    items, characters, waiting = 0, 0, [value]
    while waiting:
        item = waiting.pop()
        items += 1
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, dict | list | tuple):
            waiting += item.values() if isinstance(item, dict) else item
        if characters > MAX_TEXT:
            raise BoundError("it builds a text of more than 16 million characters")
        if items + len(waiting) > _MAX_ITEMS * 2:
            raise BoundError("it builds a list of more than 100,000 items")
    return value


def _check_binop(operator: str, left: Any, right: Any) -> None:
    """Refuse, before they are computed, results that could not even be held."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*" and left.bit_length() + right.bit_length() > _MAX_BITS:
            raise BoundError("it multiplies numbers that are too large")
        if operator == "**" and left.bit_length() * abs(right) > _MAX_BITS:
            raise BoundError("it raises a number to a power that is too large")
    elif operator == "*":
        for count, sized in ((left, right), (right, left)):
            if isinstance(count, int) and hasattr(sized, "__len__"):
                _check_length(count * len(sized), isinstance(sized, str))
    elif operator == "%" and isinstance(left, str):
        _check_format(left)
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_length(len(left) + len(right), isinstance(left, str))


def _check_length(length: int, is_text: bool) -> None:
    if length > (MAX_TEXT if is_text else _MAX_ITEMS * 2):
        raise BoundError("it builds a text or list that is too long")


def _check_call(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """`args` begins with the text itself for a method of one, as it does for a filter."""
    is_range = name in ("range", "safe_range")  # which has a bound of its own
    if not is_range and any(isinstance(a, int) and abs(a) > _MAX_NUMBER for a in (*args, *kwargs.values())):
        raise BoundError("it asks for a width or count that is too large")
    text = args[0] if args and isinstance(args[0], str) else ""
    if name in ("format", "format_map"):
        _check_format(text)
    if name in ("expandtabs", "translate", "generate_lorem_ipsum"):
        raise BoundError(f"it calls {name}, which has no place in a chat template")
    if name == "replace" and len(args) > 2:
        _check_length(text.count(str(args[1])) * len(str(args[2])), True)
    if name == "join" and text and len(args) > 1 and hasattr(args[1], "__len__"):
        _check_length(len(text) * len(args[1]), True)


def _check_format(pattern: str) -> None:
    if _WIDE_FORMAT.search(pattern):
        raise BoundError("it formats to a width that is too large")


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter behind the same checks as a call, keeping the marks by which jinja2 passes it its environment."""
    passes_first = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_call(name, args[passes_first:], kwargs)
        return _bounded(function(*args, **kwargs))

    return guarded


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """As Hugging Face renders it: no HTML escapes, and characters beyond ASCII as they are."""
    return json.dumps(_bounded(value), ensure_ascii=False, indent=min(indent, 16) if indent else indent)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
