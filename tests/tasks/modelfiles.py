"""A small reader of Ollama's Modelfile, by its reference: one instruction a line, values in quotes or triple quotes."""

from __future__ import annotations

import re

INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}
NUMBERS = {"temperature", "top_p", "min_p", "repeat_penalty"}
PARAMETERS = NUMBERS | {"num_ctx", "repeat_last_n", "seed", "stop", "num_predict", "draft_num_predict", "top_k"}


def parse(text: str) -> list[tuple[str, str]]:
    """(instruction, value) in their order. Raises ValueError for what the reference does not allow."""
    found: list[tuple[str, str]] = []
    while text := text.lstrip():
        if text.startswith("#"):
            text = text.partition("\n")[2]
            continue
        word, _, rest = text.partition(" ")
        if word.upper() not in INSTRUCTIONS:
            raise ValueError(f"{word!r} is no instruction")
        key = ""
        if word.upper() == "PARAMETER":
            key, _, rest = rest.partition(" ")
            if key not in PARAMETERS:
                raise ValueError(f"{key!r} is no parameter")
        value, text = _value(rest)
        if key in NUMBERS:
            float(value)
        elif key and key != "stop":
            int(value)
        found.append((f"{word.upper()} {key}".strip(), value))
    if [name for name, _ in found].count("FROM") != 1:
        raise ValueError("there has to be one FROM")
    return found


def _value(text: str) -> tuple[str, str]:
    """The value that begins the text, and what follows it."""
    for quotes in ('"""', '"'):
        if text.startswith(quotes):
            value, end, rest = text[len(quotes) :].partition(quotes)
            if not end or rest.partition("\n")[0].strip():
                raise ValueError("quotes that do not close at the end of a line")
            return value, rest
    value, _, rest = text.partition("\n")
    if not value.strip() or '"' in value:
        raise ValueError("a value is missing, or has quotes inside")
    return value.strip(), rest


def fill(template: str, **values: str) -> str:
    """A template of `{{ if .X }}…{{ end }}` and `{{ .X }}` only, filled in."""

    def chosen(match: re.Match[str]) -> str:
        return match[2] if values.get(match[1]) else ""

    template = re.sub(r"\{\{ if \.(\w+) \}\}(.*?)\{\{ end \}\}", chosen, template, flags=re.DOTALL)
    filled = re.sub(r"\{\{ \.(\w+) \}\}", lambda match: values.get(match[1], ""), template)
    if "{{" in filled:
        raise ValueError("more of Go's language than this reader knows")
    return filled
