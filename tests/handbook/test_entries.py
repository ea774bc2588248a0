"""The handbook says nothing that is not so: every name in it exists, and everything there is stands in it."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache

import pytest

from localllm import errors
from localllm.handbook.entries import by_id, entries, parse
from localllm.tui.commands import COMMANDS as SLASH
from tests.handbook.named import PROGRAMS, ROOT, command_in, commands, options_of, sources, spans

ALL = entries()
_FILE = re.compile(r"(?<![\w/.-])(?:[\w.-]+/)*[\w-]+\.(?:toml|md|html|jsonl|json|gguf|py)\b")
_WRITTEN_BY_PEOPLE = re.compile(
    r"(train|data|requests|results|summaries|macs|notes|facts|model|both|mistral|file|adapter|FILE|tickets-q8|report)\.\w+"
    r"|adapter_model\.safetensors|llama-3\.2-3b.*|path/to/file\.gguf|.*OUT\.gguf|model-00001-of-00003\.gguf"
)
"""Names of the reader's own files in examples."""


def test_there_are_enough_and_each_has_its_own_id() -> None:
    assert len(ALL) >= 150
    assert len(by_id()) == len(ALL)
    assert {entry.kind for entry in ALL} == {"command", "option", "error", "idea", "how-to"}


def test_entries_are_short_and_lead_on() -> None:
    for entry in ALL:
        assert 3 <= len(entry.sentences) <= 9, entry.id
        assert 45 <= len(entry.body.split()) <= 150, entry.id
        assert len(entry.sentences[0].split()) <= 40, f"{entry.id}: the deciding sentence comes first, and is short"
        assert entry.see, f"{entry.id}: nothing goes on from here"
        assert set(entry.see) <= set(by_id()) - {entry.id}, entry.id
        assert len(entry.words) >= 5, entry.id
        assert entry.body.count("`") % 2 == 0, entry.id


def test_every_command_and_option_named_exists() -> None:
    known = frozenset().union(*commands().values())
    for entry in ALL:
        outside = re.sub(r"`[^`]*`", "", entry.body)
        assert not re.search(r"(?<!\w)--\w", outside), f"{entry.id}: options stand in backticks"
        for span in spans(entry):
            if span.split()[0].split(".")[0] in PROGRAMS and "localllm" not in span:
                continue
            command = command_in(span)
            for option in options_of(span):
                assert option in (known if command is None else commands()[command]), f"{entry.id}: `{span}`"


def test_every_file_named_exists() -> None:
    for entry in ALL:
        for path in (path for span in spans(entry) for path in _FILE.findall(span)):
            ours = (ROOT / path).exists() or path.rpartition("/")[2] in sources()
            assert ours or _WRITTEN_BY_PEOPLE.search(path), f"{entry.id}: {path}"


def test_every_variable_named_exists() -> None:
    elsewhere = _text("Makefile") + _text("CONTRIBUTING.md") + _text("localllm/config.py") + "NO_COLOR"
    for entry in ALL:
        for variable in (found for span in spans(entry) for found in re.findall(r"\b[A-Z]+_[A-Z_]+\b", span)):
            setting = f"{variable.removeprefix('LOCALLLM_').lower()}:"  # a field of Settings
            assert variable in sources() + elsewhere or setting in elsewhere, f"{entry.id}: {variable}"


def test_every_slash_command_named_exists() -> None:
    for entry in ALL:
        for span in spans(entry):
            if re.fullmatch(r"/[a-z]+( .*)?", span):
                assert span[1:].split()[0] in SLASH, f"{entry.id}: {span}"


def test_every_message_explained_is_one_that_the_program_prints() -> None:
    for entry in ALL:
        assert bool(entry.says) == (entry.kind == "error"), entry.id
        for piece in entry.says:
            assert piece.replace("{have}", "…") in _messages(), f"{entry.id}: {piece}"


def test_every_command_and_option_stands_in_the_handbook() -> None:
    text = " ".join(entry.body for entry in ALL)
    spanned = {(command_in(span), option) for entry in ALL for span in spans(entry) for option in options_of(span)}
    named = {option for _, option in spanned}
    for command, options in commands().items():
        assert f"localllm {command}".strip() in text or not command, f"no entry names `localllm {command}`"
        missing = {o for o in options if o.startswith("--")} - named - {"--help"}
        assert not missing, f"no entry names {missing} of `localllm {command}`"


def test_every_class_of_error_stands_in_the_handbook() -> None:
    words = {word for entry in ALL if entry.kind == "error" for word in entry.words}
    classes = {name for name, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__}
    assert classes - {"LocalLLMError", "ModelError"} <= words


@pytest.mark.parametrize(
    "text, problem",
    [
        ("# A\n\n## T\nid: a\nkind: nonsense\n\nBody.", "needs an id, a kind"),
        ("# A\n\n## T\nid: a\nkind: idea\ncolour: red\n\nBody.", "unknown keys: colour"),
        ("# A\n\n## T\nid: a\nkind: idea\n\n", "needs an id, a kind"),
    ],
)
def test_a_malformed_entry_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"The entry 'T'.*{problem}"):
        list(parse(text))


@cache
def _messages() -> str:
    """All texts in the program's code, with what is filled in left out."""
    found = []
    for path in sorted((ROOT / "localllm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def _text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")
