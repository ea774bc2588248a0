"""What a person types to name something on the hub: owner/repo, owner/repo:Q4_K_M, owner/repo/file.gguf, an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Reference:
    """A repository, or a part of one."""

    repo: str
    """owner/name."""
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
    rest, revision = text.strip(), ""
    scheme = next((s for s in _SCHEMES if rest.lower().startswith(s)), "")
    if scheme:
        address = urlsplit(rest)
        if scheme == "hf://":
            rest = rest[len(scheme) :]
        elif (address.hostname or "").lower() not in {*HOSTS, host.lower()}:
            raise UsageError(f"{text} is not an address of the hub.", f"Give {FORMS}.")
        else:
            rest = unquote_path(address.path)
    elif rest.partition("/")[0].lower() in {*HOSTS, host.lower()} - {""}:
        rest = rest.partition("/")[2]
    segments = rest.strip("/").split("/")
    if segments[0] in ("datasets", "spaces", "kernels", "buckets"):
        raise UsageError(f"{text} is not a model.", f"Give {FORMS}.")
    segments = segments[1:] if segments[0] == "models" else segments
    if len(segments) > 3 and segments[2] in _ROUTES:
        revision = unquote(segments[3])
        segments = segments[:2] + segments[4:]
    if len(segments) < 2:
        raise UsageError(f"{text} does not name a repository.", f"Give {FORMS}.")
    return _checked(text, segments, revision)


def unquote_path(path: str) -> str:
    """The path of an address as text; an escaped slash stays one, for it is part of a revision's name."""
    return "/".join(part if "%2f" in part.lower() else unquote(part) for part in path.split("/"))


def _checked(text: str, segments: list[str], revision: str) -> Reference:
    owner, name, *path = segments
    name, colon, quantization = name.partition(":")
    name, _, at = name.partition("@")
    if path and path[-1].count(":") == 1 and not colon:  # owner/repo/folder:Q4 is no form; the file's name has no colon
        raise UsageError(f"{text} names both a file and a quantization.", f"Give {FORMS}.")
    for part in (owner, name):
        if not _REPO.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise UsageError(f"{text} does not name a repository: {part!r} cannot be a part of it.", f"Give {FORMS}.")
    if colon and not _QUANT.fullmatch(quantization):
        raise UsageError(f"{quantization!r} cannot be a quantization.", "For example owner/repo:Q4_K_M.")
    file = "/".join(path)
    if file and not is_safe(file):
        raise UsageError(f"{file!r} cannot be a file of a repository.", f"Give {FORMS}.")
    return Reference(f"{owner}/{name}", quantization, file, revision or at)
