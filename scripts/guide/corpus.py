"""Prose for passages: sentences from documentation that is installed with the project or with Python itself.

Sources, found without importing them: CPython's standard library and its `pydoc_data/topics.py` (PSF-2.0), numpy
(BSD-3-Clause), transformers and huggingface_hub (Apache-2.0), textual (MIT). The same versions give the same corpus.

    python -m guide.corpus OUT.json       # from scripts/, with the project's own environment
"""

import ast
import json
import re
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("numpy", "huggingface_hub", "textual", "transformers")
Passage = list[str]
"""Consecutive sentences of one document."""

_ROLE = re.compile(r":(?:\w+:)?\w+:`~?\.?([^`<]+?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"\[`?([^\]`]+)`?\](?:\([^)]*\))?_?")
_NOT_PROSE = re.compile(r">>>|::|https?:|\{\{|^\s*(?:[-*+|=:.#@>$]|\d+[.)]\s)|[{}<>\\|=_~]|[^\x20-\x7e\n]", re.M)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|al|Fig|Eq|Dr|Mr|Ms|Mrs|St|No|approx|resp|[A-Z]))\.$")


def _stdlib_files() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__"}
    return sorted(p for p in root.rglob("*.py") if not skip & set(p.relative_to(root).parts))


def _package_files(name: str) -> list[Path]:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the corpus needs the package {name}: install the project, then try again")
    root = Path(spec.origin).parent
    return sorted(p for p in root.rglob("*.py") if not {"tests", "test"} & set(p.relative_to(root).parts))


def _texts(path: Path) -> Iterator[str]:
    """Every long string constant of a source file: docstrings, and the tables of help texts."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) >= 80:
            yield node.value


def clean(paragraph: str) -> str:
    """One paragraph on one line, without the marks of reStructuredText and Markdown."""
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", paragraph))
    return re.sub(r"\s+", " ", re.sub(r"`{1,2}|\*{1,2}", "", text)).strip()


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph; a mark after a usual abbreviation does not end one."""
    sentences: list[str] = []
    for part in _SENTENCE_END.split(text):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += " " + part
        else:
            sentences.append(part)
    return sentences


def is_sentence(text: str) -> bool:
    """Whether this looks like a whole English sentence of a usable length."""
    words = text.split()
    letters = sum(c.isalpha() or c == " " for c in text)
    return (
        5 <= len(words) <= 45
        and text[0].isupper()
        and text[-1] in ".!?"
        and letters >= 0.9 * len(text)
        and max(map(len, words)) <= 24
        and sum(w[0].islower() for w in words) >= 0.6 * len(words)
    )


def _passages(text: str, seen: set[str]) -> Iterator[Passage]:
    """Runs of sentences of one string; a sentence met before ends a run and is left out."""
    run: Passage = []
    for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text)):
        if _NOT_PROSE.search(_LINK.sub(r"\1", paragraph)):
            continue
        for sentence in split_sentences(clean(paragraph)):
            if is_sentence(sentence) and sentence not in seen:
                seen.add(sentence)
                run.append(sentence)
            elif run:
                yield run
                run = []
    if run:
        yield run


def harvest() -> list[Passage]:
    """Every passage of every source, in a fixed order, no sentence twice."""
    seen: set[str] = set()
    groups = [_stdlib_files(), *map(_package_files, PACKAGES)]
    return [p for files in groups for path in files for text in _texts(path) for p in _passages(text, seen)]


def load(path: Path) -> list[Passage]:
    """The corpus kept at `path`, gathered there on the first call."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(harvest()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    found = load(Path(sys.argv[1]))
    print(
        f"{len(found)} passages, {sum(map(len, found))} sentences, {sum(len(s) for p in found for s in p)} characters"
    )
