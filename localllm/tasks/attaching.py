"""`@path` in a message: the text of a file takes its place, and its tokens can be known before."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localllm.errors import DataError

_MENTION = re.compile(r"""(?<!\S)@(?:"([^"\n]+)"|'([^'\n]+)'|((?:[^\s\\]|\\.)+))""")
_BEGUN = re.compile(r"""(?<!\S)@(?:"([^"\n]*)|'([^'\n]*)|((?:[^\s\\"']|\\.)(?:[^\s\\]|\\.)*|))$""")
_LAST_FILE = re.compile(r"\n\n[^\n]+:\n(`{3,})\n((?:(?!\n\1\n).)*)\n\1\Z", re.DOTALL)
MOST_CANDIDATES = 200


@dataclass(frozen=True)
class Attachment:
    """A file that a message names."""

    mention: str
    """As it stands in the message, with its @."""
    path: Path
    text: str


def mentions(message: str) -> list[tuple[str, Path]]:
    """(mention, path) for every `@path` that is a file: without one, an @ is only a character."""
    found = []
    for match in _MENTION.finditer(message):
        for mention, name in _readings(match):
            path = Path(name).expanduser()
            if _is_file(path):
                found.append((mention, path))
                break
    return found


def _readings(match: re.Match[str]) -> list[tuple[str, str]]:
    """The path as it is, and without the punctuation that ends a sentence."""
    whole = match[0]
    if match[3] is None:
        return [(whole, match[1] or match[2])]
    bare = match[3].rstrip(".,;:!?)")
    return [(whole, match[3].replace("\\ ", " ")), (f"@{bare}", bare.replace("\\ ", " "))]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def attachments(message: str) -> list[Attachment]:
    """The files that a message names, read: text, PDF, Word and whatever else documents can be.

    Raises DataError for one that cannot be read.
    """
    from localllm.data.documents import Document, Unreadable, read_documents

    found = []
    for mention, path in dict(mentions(message)).items():
        texts = []
        for document in read_documents([path]):
            if isinstance(document, Unreadable):
                raise DataError(f"{mention}: {document.message}", document.hint or "Take it out of the message.")
            if isinstance(document, Document):
                texts.append(document.text)
        if not any(text.strip() for text in texts):
            raise DataError(f"{mention} holds no text.", "Take it out of the message.")
        found.append(Attachment(mention, path, "\n".join(texts)))
    return found


def with_attachments(message: str, files: list[Attachment]) -> str:
    """The message as it is sent: the texts of its files stand below it, each under its name."""
    return "\n\n".join([message, *(f"{file.path.name}:\n{_fenced(file.text)}" for file in files)])


def apart(content: str) -> tuple[str, list[str]]:
    """What `with_attachments` put together: the message, and the texts of its files."""
    texts: list[str] = []
    while match := _LAST_FILE.search(content):
        texts.insert(0, match[2])
        content = content[: match.start()]
    return content, texts


def read_first(content: str) -> str:
    """The message as a model gets it that only reads: the texts of the files, then what is asked about them."""
    message, texts = apart(content)
    if not texts:
        return content
    asked = " ".join(_MENTION.sub("", message).split())
    return "\n\n".join([*texts, asked] if asked else texts)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"


def mention_of(path: Path) -> str:
    """How a file is named in a message."""
    return _mention(str(path), whole=True)


def _mention(path: str, *, whole: bool) -> str:
    """`@path`, in quotes where it needs some; they stay open while it is not `whole`."""
    if re.fullmatch(r"[^\s\"'\\]*", path):
        return f"@{path}"
    quote = "'" if '"' in path else '"'
    return f"@{quote}{path}{quote if whole else ''}"


def dropped(pasted: str) -> str | None:
    """What stands for files dropped on a terminal, which pastes their paths, quoted or escaped; None for other text."""
    if "\n" in pasted.strip() or not pasted.strip() or len(pasted) > 4096:
        return None
    try:
        names = shlex.split(pasted)
    except ValueError:
        return None
    paths = [Path(unquote(urlsplit(n).path)) if n.startswith("file://") else Path(n).expanduser() for n in names]
    if not paths or not all(path.is_absolute() and _is_file(path) for path in paths):
        return None
    return " ".join(map(mention_of, paths)) + " "


def complete(line: str) -> tuple[int, str, list[str]] | None:
    """The mention that a line ends with, completed: where it begins, what it becomes, and the paths that fit.

    None where the line does not end with one.
    """
    match = _BEGUN.search(line)
    if match is None:
        return None
    begun = next(filter(None, match.groups()), "").replace("\\ ", " ")
    found = completions(begun)
    common = _common_start(found) or begun
    whole = len(found) == 1 and not common.endswith("/")
    becomes = _mention(common, whole=whole) + " " * whole
    return match.start(), becomes if found else match[0], found


def _common_start(names: list[str]) -> str:
    """What all of them begin with."""
    first, last = min(names, default=""), max(names, default="")
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def completions(prefix: str) -> list[str]:
    """Paths that begin so, folders with a slash; hidden ones only when the prefix asks for them."""
    folder, _, name = prefix.rpartition("/")
    root = Path(folder or ("/" if prefix.startswith("/") else ".")).expanduser()
    try:
        entries = sorted(os.scandir(root), key=lambda entry: (not entry.is_dir(), entry.name.lower()))
    except OSError:
        return []
    head = f"{folder}/" if "/" in prefix else ""
    fitting = [e for e in entries if e.name.startswith(name) and (name.startswith(".") or not e.name.startswith("."))]
    fitting = [entry for entry in fitting if _can_be_named(entry.name)]
    return [f"{head}{entry.name}{'/' if entry.is_dir() else ''}" for entry in fitting[:MOST_CANDIDATES]]


def _can_be_named(name: str) -> bool:
    """Whether a message can hold the name: not with a line break, with both quotes, or with bytes that are no text."""
    return name.splitlines() == [name] and not {'"', "'"} <= set(name) and not re.search("[\ud800-\udfff]", name)
