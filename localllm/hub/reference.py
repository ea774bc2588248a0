"""What a person types to name something on the hub: owner/repo, owner/repo:Q4_K_M, owner/repo/file.gguf, an address."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from localllm.errors import UsageError
from localllm.hub.names import is_safe
from localllm.hub.surroundings import HOSTS

_REPO = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEMES = ("https://", "http://", "hf://")
_ROUTES = ("resolve", "blob", "raw", "tree")
"""Words of an address after which the revision and the path follow."""
FORMS = "owner/repo, owner/repo:Q4_K_M, owner/repo/file.gguf, or the address of one of them"
DATASET_FORMS = "owner/name, owner/name@revision, owner/name/file.jsonl, or the address of one of them"
_DATASETS = "datasets/"
_NO_MODELS = ("datasets", "spaces", "kernels", "buckets")


@dataclass(frozen=True)
class Reference:
    """A repository, or a part of one."""

    repo: str
    """owner/name, or datasets/owner/name."""
    quantization: str = ""
    """As typed, such as "q4_k_m"."""
    file: str = ""
    """Path of a file within the repository."""
    revision: str = ""
    """Branch, tag or commit; empty for the main branch."""

    def __str__(self) -> str:
        tail = f":{self.quantization}" if self.quantization else f"/{self.file}" if self.file else ""
        return self.repo + tail


def looks_remote(text: str, host: str = "") -> bool:
    """Whether this can only name something on the hub, or at least may."""
    try:
        parse(text, host)
    except UsageError:
        return False
    return not text.startswith((".", "/", "~"))


def parse(text: str, host: str = "") -> Reference:
    """Read a reference; `host` is one more that is taken for the hub's. Raises UsageError."""
    segments = _split(text, host, FORMS)
    if segments[0] in _NO_MODELS:
        hint = "`localllm data check` and `finetune` take datasets." if segments[0] == "datasets" else f"Give {FORMS}."
        raise UsageError(f"{text} is not a model.", hint)
    segments = segments[1:] if segments[0] == "models" else segments
    return _checked(text, segments, FORMS)


def parse_dataset(text: str, host: str = "") -> Reference:
    """Read the name of a dataset, or of a file or folder in it, with or without "datasets/". Raises UsageError."""
    segments = _split(text, host, DATASET_FORMS)
    if segments[0] in ("models", *_NO_MODELS[1:]):
        raise UsageError(f"{text} is not a dataset.", f"Give {DATASET_FORMS}.")
    segments = segments[1:] if segments[0] == "datasets" else segments
    segments = segments[:2] if segments[2:3] == ["viewer"] else segments  # the page that shows the rows
    found = _checked(text, segments, DATASET_FORMS)
    if found.quantization:
        raise UsageError(f"{text} does not name a dataset.", f"Give {DATASET_FORMS}.")
    return replace(found, repo=_DATASETS + found.repo)


def kind_of(repo: str) -> Literal["model", "dataset"]:
    """What a repository holds, by its name."""
    return "dataset" if repo.startswith(_DATASETS) else "model"


def bare(repo: str) -> str:
    """owner/name alone."""
    return repo.removeprefix(_DATASETS)


def _split(text: str, host: str, forms: str) -> list[str]:
    """The parts of a name or of the path of an address. Raises UsageError for the address of another host."""
    rest = text.strip()
    scheme = next((s for s in _SCHEMES if rest.lower().startswith(s)), "")
    if scheme:
        address = urlsplit(rest)
        if scheme == "hf://":
            rest = rest[len(scheme) :]
        elif (address.hostname or "").lower() not in {*HOSTS, host.lower()}:
            raise UsageError(f"{text} is not an address of the hub.", f"Give {forms}.")
        else:
            rest = unquote_path(address.path)
    elif rest.partition("/")[0].lower() in {*HOSTS, host.lower()} - {""}:
        rest = rest.partition("/")[2]
    return rest.strip("/").split("/")


def _without_route(segments: list[str]) -> tuple[list[str], str]:
    """An address names the revision between the repository and the path."""
    if len(segments) > 3 and segments[2] in _ROUTES:
        return segments[:2] + segments[4:], unquote(segments[3])
    return segments, ""


def unquote_path(path: str) -> str:
    """The path of an address as text; an escaped slash stays one, for it is part of a revision's name."""
    return "/".join(part if "%2f" in part.lower() else unquote(part) for part in path.split("/"))


def _checked(text: str, segments: list[str], forms: str) -> Reference:
    if len(segments) < 2:
        raise UsageError(f"{text} does not name a repository.", f"Give {forms}.")
    (owner, name, *path), revision = _without_route(segments)
    name, colon, quantization = name.partition(":")
    name, _, at = name.partition("@")
    if path and path[-1].count(":") == 1 and not colon:  # owner/repo/folder:Q4 is no form; the file's name has no colon
        raise UsageError(f"{text} names both a file and a quantization.", f"Give {forms}.")
    for part in (owner, name):
        if not _REPO.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise UsageError(f"{text} does not name a repository: {part!r} cannot be a part of it.", f"Give {forms}.")
    if colon and not _QUANT.fullmatch(quantization):
        raise UsageError(f"{quantization!r} cannot be a quantization.", "For example owner/repo:Q4_K_M.")
    file = "/".join(path)
    if file and not is_safe(file):
        raise UsageError(f"{file!r} cannot be a file of a repository.", f"Give {forms}.")
    return Reference(f"{owner}/{name}", quantization, file, revision or at)
