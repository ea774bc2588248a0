"""A hub to test against: what huggingface_hub really asks for, from two local servers, and many ways to misbehave.

One server is the hub, the other the store that it redirects to for large files, on a port of its own so that the two
are different origins. Contents are bytes or paths; hashes are computed here and never taken from the program.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_good"
LFS_FROM = 4096
"""Bytes from which a file is in LFS, unless said otherwise."""


@dataclass
class File:
    """One file of a repository."""

    content: bytes | Path
    lfs: bool
    sha256: str = ""
    sha1: str = ""
    size: int = 0
    xet: str = ""
    """Its hash in Xet's storage."""

    def read(self, start: int, end: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start:end]
        with self.content.open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.sha1


@dataclass
class Repo:
    """A repository with its commits; `head` is where the main branch is."""

    name: str
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    gated: str | bool = False
    private: bool = False

    def commit(self, files: dict[str, Any], branch: str = "main", *, xet: bool = False) -> str:
        made = {path: as_file(content, xet=xet) for path, content in files.items()}
        seed = json.dumps([self.name, len(self.commits), {path: f.etag for path, f in made.items()}])
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = made
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


def as_file(content: Any, *, lfs: bool | None = None, xet: bool = False) -> File:
    if isinstance(content, File):
        return content
    whole = content.read_bytes() if isinstance(content, Path) and content.stat().st_size < 1 << 26 else content
    if isinstance(whole, Path):
        with whole.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return File(whole, True, sha256, "0" * 40, whole.stat().st_size)
    sha1 = hashlib.sha1(b"blob %d\0" % len(whole) + whole).hexdigest()
    sha256 = hashlib.sha256(whole).hexdigest()
    return File(
        whole, len(whole) >= LFS_FROM if lfs is None else lfs, sha256, sha1, len(whole),
        hashlib.sha256(b"xet" + whole).hexdigest() if xet else "",
    )  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One misbehaviour, for the next request to `place` ("hub": the API, "resolve", "store")."""

    kind: str
    place: str = "store"
    at: int = 0
    """Bytes of the body that come before it, or the byte that is wrong."""
    seconds: float = 0.0
    """How long a hang lasts, between two bytes that drip, or to wait until a retry."""
    match: str = ""
    """Only for requests whose path holds this."""


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    place: str
    method: str
    path: str
    range: str
    authorization: str
    sent: list[int]
    """One number: bytes of body that were sent."""


class HubServer:
    """The two servers, what they hold, and what they were asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.page_size = 1000
        self.tokens = {TOKEN}
        self.allowed: set[str] = set()
        """Tokens that may read gated repositories."""
        self.etag_suffix = ""
        self.rate = 0
        """Bytes a second that the store sends, or as fast as it can."""
        self.plain_refused = False
        """Whether the store refuses plain requests (what lies in Xet only)."""
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._servers = [_server(self, place) for place in ("hub", "store")]
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def repo(self, name: str, files: dict[str, Any] | None = None, *, xet: bool = False, **options: Any) -> Repo:
        repo = self.repos[name] = Repo(name, **options)
        repo.commit(files or {}, xet=xet)
        return repo

    def fault(self, kind: str, place: str = "store", times: int = 1, **options: Any) -> None:
        self.faults += [Fault(kind, place, **options)] * times

    def take_fault(self, place: str, path: str) -> Fault | None:
        with self._lock:
            for i, fault in enumerate(self.faults):
                if fault.place == place and fault.match in path:
                    return self.faults.pop(i)
        return None

    def bytes_sent(self, place: str = "store") -> int:
        return sum(asked.sent[0] for asked in self.asked if asked.place == place)

    def find(self, sha256: str) -> File | None:
        """A file by its hash."""
        everything = (f for r in self.repos.values() for files in r.commits.values() for f in files.values())
        return next((file for file in everything if file.sha256 == sha256), None)

    def close(self) -> None:
        self.over.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


@contextmanager
def serving() -> Iterator[HubServer]:
    hub = HubServer()
    try:
        yield hub
    finally:
        hub.close()


def _server(hub: HubServer, place: str) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "place": place})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what half of the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: HubServer
    place: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._serve()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.asked = Asked(
            self.place, self.command, self.path, self.headers.get("Range", ""), self.headers.get("Authorization", ""),
            [0],
        )  # fmt: skip
        self.hub.asked.append(self.asked)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.place == "store":
            self._store(parts.path)
            return
        if length := int(self.headers.get("Content-Length", 0)):
            self.form = parse_qs(self.rfile.read(length).decode())
        kind = "resolve" if "/resolve/" in parts.path or "/resolve-cache/" in parts.path else "hub"
        fault = self.hub.take_fault(kind, parts.path)
        if fault and self._misbehaves(fault):
            return
        token = self.asked.authorization.removeprefix("Bearer ")
        if token and token not in self.hub.tokens | self.hub.allowed:
            self._error(401, "", "Invalid credentials in Authorization header")
        elif parts.path.startswith("/api/"):
            self._api(unquote(parts.path), parts.path, token)
        else:
            self._resolve(parts.path, token)

    def _misbehaves(self, fault: Fault) -> bool:
        """What is the same wherever it happens. False where the body is what is wrong."""
        if fault.kind == "busy":
            after = {"Retry-After": f"{fault.seconds:.0f}"} if fault.seconds >= 0 else {}
            self._error(429, "", "Too many requests", after)
        elif fault.kind in ("500", "503", "403", "404"):
            self._error(int(fault.kind), "", "")
        elif fault.kind == "hang":
            self.hub.over.wait(fault.seconds)
            self.close_connection = True
        elif fault.kind == "loop":
            self._send(302, b"", {"Location": self.path})
        elif fault.kind == "elsewhere":  # redirects to another scheme or host
            self._send(302, b"", {"Location": fault.match or "ftp://127.0.0.1/"})
        elif fault.kind == "not-json":
            self._send(200, b"<html>Sign in to this network</html>", {"Content-Type": "text/html"})
        elif fault.kind == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not self.hub.over.is_set():
                    self.wfile.write(b" " * 65536)
            self.close_connection = True
        elif fault.kind == "drop" and self.place == "hub":
            self.close_connection = True
        elif fault.kind == "moved":  # the branch goes on while the file is asked for
            repo = self.hub.repos[unquote(self.path.partition("/resolve/")[0].strip("/"))]
            repo.commit(repo.commits[repo.branches["main"]] | {"README.md": str(len(repo.commits)).encode()})
            return False
        else:
            return False
        return True

    # The API

    def _api(self, path: str, raw: str, token: str) -> None:
        if path == "/api/whoami-v2":
            self._json(
                {"type": "user", "name": "someone", "auth": {}} if token else {"error": "no"}, 200 if token else 401
            )
        elif path in ("/api/models", "/api/datasets"):
            self._search("datasets/" if path == "/api/datasets" else "")
        elif path.startswith(("/api/resolve-cache/models/", "/api/resolve-cache/datasets/")):
            _, _, _, kind, owner, name, commit, *rest = path.split("/")
            self._content(_key(kind, owner, name), commit, "/".join(rest))
        elif path.startswith(("/api/models/", "/api/datasets/")):
            self._about(raw, token)
        else:
            self._error(404, "", "Not found")

    def _search(self, kind: str) -> None:
        words, author = self.query.get("search", "").lower(), self.query.get("author", "").lower()
        found = {
            name.removeprefix(kind): repo for name, repo in self.hub.repos.items()
            if name.startswith("datasets/") == bool(kind)
        }  # fmt: skip
        names = [
            name for name in found
            if words in name.lower() and name.lower().startswith(f"{author}/" if author else "")
        ]  # fmt: skip
        self._json([{"id": name, "modelId": name, "tags": list(found[name].tags)} for name in names])

    def _about(self, raw: str, token: str) -> None:
        _, _, kind, owner, name, *rest = raw.split("/")
        repo = self._allowed(_key(kind, owner, name), token)
        if repo is None:
            return
        action, revision = (rest[0], unquote(rest[1])) if len(rest) > 1 else ("revision", "main")
        commit = repo.at(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif action == "revision":
            self._info(repo, commit)
        elif action == "tree":
            self._tree(repo, commit)
        elif action == "paths-info":
            files = repo.commits[commit]
            self._json([_row(path, files[path]) for path in self.form.get("paths", []) if path in files])
        elif action == "xet-read-token":
            headers = {"X-Xet-Cas-Url": self.hub.store, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": "4e9"}
            headers["X-Xet-Token-Expiration"] = str(int(time.time()) + 3600)
            self._json({}, 200, headers)
        else:
            self._error(404, "", "Not found")

    def _info(self, repo: Repo, commit: str) -> None:
        files = repo.commits[commit]
        siblings = [{"rfilename": path} for path in files]
        if self.query.get("blobs"):
            siblings = [
                {"rfilename": path, "size": f.size, "blobId": f.sha1}
                | ({"lfs": {"sha256": f.sha256, "size": f.size, "pointerSize": 134}} if f.lfs else {})
                for path, f in files.items()
            ]
        self._json({
            "_id": "1", "id": repo.name.removeprefix("datasets/"), "modelId": repo.name, "sha": commit,
            "private": repo.private, "gated": repo.gated, "tags": list(repo.tags), "downloads": 1, "likes": 0,
            "siblings": siblings,
            "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z",
        })  # fmt: skip

    def _tree(self, repo: Repo, commit: str) -> None:
        files = sorted(repo.commits[commit].items())
        first = int(self.query.get("cursor", 0))
        rows = [_row(path, file) for path, file in files[first : first + self.hub.page_size]]
        headers = {}
        if first + self.hub.page_size < len(files):
            target = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive=true&cursor={first + self.hub.page_size}"
            headers["Link"] = f'<{target}>; rel="next"'
        self._json(rows, 200, headers)

    def _allowed(self, name: str, token: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and token not in self.hub.tokens):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    # Files

    def _resolve(self, raw: str, token: str) -> None:
        before, _, after = raw.partition("/resolve/")
        repo = self._allowed(unquote(before.strip("/")), token)
        if repo is None:
            return
        revision, _, path = after.partition("/")
        path = unquote(path)
        if repo.gated and token not in self.hub.allowed:
            self._error(403 if token else 401, "GatedRepo", f"Access to model {repo.name} is restricted.")
            return
        commit = repo.at(unquote(revision))
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        file = repo.commits[commit].get(path)
        if file is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.etag}"'}
        if file.xet:
            route = f"{self.hub.endpoint}/api/{_address(repo.name)}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": file.xet, "Link": f'<{route}>; rel="xet-auth"'}
        target = f"{self.hub.store}/{file.sha256}?signature=1"
        if not file.lfs:
            target = f"/api/resolve-cache/{_address(repo.name)}/{commit}/{quote(path)}"
        self._send(302 if file.lfs else 307, b"", {**headers, "Location": target})

    def _content(self, name: str, commit: str, path: str) -> None:
        """A small file, from the hub itself."""
        file = self.hub.repos[name].commits[commit][path]
        self._body(file, file.sha1, {"X-Repo-Commit": commit}, None)

    def _store(self, path: str) -> None:
        fault = self.hub.take_fault("store", path)
        if fault and self._misbehaves(fault):
            return
        file = self.hub.find(path.strip("/"))
        if file is None or self.hub.plain_refused:
            self._error(403 if file else 404, "", "no")
            return
        self._body(file, f"store-{file.sha256[:20]}{self.hub.etag_suffix}", {}, fault)

    def _body(self, file: File, etag: str, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        start, partly = self._range(file, etag, kind)
        if partly is None:
            self._error(416, "", "", {"Content-Range": f"bytes */{file.size}"})
            return
        etag = f'"{etag}-changed"' if kind == "etag" else f'"{etag}"'
        headers |= {"ETag": etag, "Accept-Ranges": "bytes", "Content-Length": str(file.size - start)}
        if partly:
            shown = start + 7 if kind == "range" else start
            headers["Content-Range"] = f"bytes {shown}-{self.end - 1}/{file.size}"
            headers["Content-Length"] = str(self.end - start)
        if kind == "length":
            headers["Content-Length"] = str(self.end - start + 1000)
        if kind == "compressed":
            packed = gzip.compress(file.read(start, self.end), 1)
            self._send(200, packed, {**headers, "Content-Encoding": "gzip", "Content-Length": str(len(packed))})
            return
        self.send_response(206 if partly else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._pour(file, start, self.end, fault)

    def _range(self, file: File, etag: str, kind: str) -> tuple[int, bool | None]:
        """Where the body begins and whether it is a part; None for a range that there is not."""
        self.end = file.size
        asked, condition = self.asked.range, self.headers.get("If-Range", "")
        same = condition in ("", f'"{etag}"') and kind != "etag"
        if not asked.startswith("bytes=") or kind == "whole" or (condition and not same):
            return 0, False
        first, _, last = asked[6:].partition("-")
        start = int(first)
        if start >= file.size:
            return start, None
        if last:
            self.end = min(file.size, int(last) + 1)
        return start, True

    def _pour(self, file: File, start: int, end: int, fault: Fault | None) -> None:
        kind, at = (fault.kind, fault.at) if fault else ("", 0)
        if not kind and not self.hub.rate and isinstance(file.content, Path):
            with file.content.open("rb") as stream:
                while start < end:
                    count = os.sendfile(self.connection.fileno(), stream.fileno(), start, end - start)
                    start += count
                    self.asked.sent[0] += count
            return
        stop = min(end, start + at) if kind in ("drop", "stop", "drip") else end
        while start < stop:
            piece = file.read(start, min(stop, start + (1 << 16)))
            if kind == "wrong" and start <= at < start + len(piece):
                piece = piece[: at - start] + bytes([piece[at - start] ^ 0x40]) + piece[at - start + 1 :]
            self.wfile.write(piece)
            self.asked.sent[0] += len(piece)
            start += len(piece)
            if self.hub.rate:
                self.hub.over.wait(len(piece) / self.hub.rate)
        if kind in ("drop", "length"):
            self.close_connection = True
        elif kind == "stop":  # nothing more comes, and the connection stays
            self.hub.over.wait(fault.seconds if fault else 0)
            self.close_connection = True
        elif kind == "drip":
            while start < end and not self.hub.over.wait(fault.seconds if fault else 0):
                self.wfile.write(file.read(start, start + 1))
                self.asked.sent[0] += 1
                start += 1

    # Answers

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": code} if code else {}
        told |= {"X-Error-Message": message} if message else {}
        self._json({"error": message}, status, {**told, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _key(kind: str, owner: str, name: str) -> str:
    """Under what a repository is held here, as it is addressed: datasets/owner/name, and models by owner/name alone."""
    return f"{owner}/{name}" if kind == "models" else f"{kind}/{owner}/{name}"


def _address(key: str) -> str:
    return key if key.startswith("datasets/") else f"models/{key}"


def _row(path: str, file: File) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": file.sha1, "size": file.size, "path": path}
    if file.lfs:
        row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    if file.xet:
        row["xetHash"] = file.xet
    return row
