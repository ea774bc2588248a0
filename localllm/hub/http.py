"""Requests to the hub and to the servers it points to: redirects by hand, bounds on everything, errors in two kinds.

A request either gives a response, raises Transient for what may pass (the network, 429, 5xx), or raises a
LocalLLMError that no repetition would change. The token goes to the hub's own origin and nowhere else.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from localllm.errors import CancelledError, HubError, TransferError, UnreachableError
from localllm.hub.refusals import RefusedError, refusal
from localllm.hub.surroundings import Surroundings

if TYPE_CHECKING:
    from httpx2 import Client, Response

STOPPED = "Stopped; what has arrived is kept, and the same command goes on from there."
_PORTS = {"http": 80, "https": 443}
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Limits:
    """How long and how often something is tried."""

    attempts: int = 6
    """Times in a row that nothing came."""
    first_pause: float = 1.0
    """Seconds before the second attempt; each later pause is twice as long."""
    longest_pause: float = 30.0
    longest_asked: float = 120.0
    """A hub that asks to wait for longer (Retry-After) is not waited for."""
    redirects: int = 8
    json_bytes: int = 32 << 20
    """Of one answer of the hub's API."""
    stalled_seconds: float = 30.0
    """A transfer that over so long brings less than `stalled_bytes` is begun again."""
    stalled_bytes: int = 1 << 14


class Transient(Exception):  # noqa: N818 - it never leaves this room
    """What may pass: `reason` says what it was, `after` how many seconds the other side asks to wait."""

    def __init__(self, reason: str, after: float | None = None, *, unreached: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.after, self.unreached = reason, after, unreached


@dataclass(frozen=True)
class Answer:
    """A response whose body has not been read, and what the hub said of the file before it pointed elsewhere."""

    response: Response
    linked: Mapping[str, str]
    """Headers of the first response, which is the hub's."""


class Hub:
    """A connection to the hub; not for several threads at once."""

    def __init__(self, here: Surroundings, limits: Limits | None = None, cancel: threading.Event | None = None) -> None:
        self.here, self.limits = here, limits or Limits()
        self.cancel = cancel or threading.Event()
        self._client: Client | None = None

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def _opened(self) -> Client:
        if self._client is None:
            import httpx2

            timeout = httpx2.Timeout(self.here.timeout, connect=min(10.0, self.here.timeout))
            self._client = httpx2.Client(timeout=timeout, follow_redirects=False)
        return self._client

    def check_cancelled(self) -> None:
        if self.cancel.is_set():
            raise CancelledError(STOPPED)

    @contextmanager
    def get(self, url: str, repo: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """GET with a body to be streamed. Raises Transient and HubError, also out of the reading of the body."""
        self.check_cancelled()
        if self.here.offline:
            hint = "Unset HF_HUB_OFFLINE to fetch; what is here already can be used without it."
            raise UnreachableError("HF_HUB_OFFLINE is set, so the hub is not asked.", hint)
        with _translated(url, self.cancel):
            answer = self._follow(url, headers or {})
            try:
                if answer.response.status_code >= 400:
                    raise self._refused(answer.response, repo)
                yield answer
            finally:
                answer.response.close()

    def json(self, url: str, repo: str, params: Mapping[str, str] | None = None) -> tuple[Any, str]:
        """The value of one answer of the API, and the address of the next page. Raises Transient and HubError."""
        import httpx2

        full = str(httpx2.URL(url, params=params)) if params else url
        with self.get(full, repo, {"Accept": "application/json"}) as answer:
            body = bytearray()
            for piece in answer.response.iter_bytes():
                body += piece
                if len(body) > self.limits.json_bytes:
                    raise HubError(f"The hub's answer about {repo} is far too long.", "Check HF_ENDPOINT.")
            following = answer.response.links.get("next", {}).get("url", "")
        try:
            return json.loads(body), str(following)
        except (ValueError, RecursionError):
            host = self.here.host
            raise HubError(f"{host} does not answer as a hub does.", "Check HF_ENDPOINT and any proxy.") from None

    def pause(self, failure: Transient, failed: int) -> float:
        """Seconds to wait after so many failures in a row. Raises UnreachableError when that was the last attempt."""
        most = min(2, self.limits.attempts) if failure.unreached else self.limits.attempts
        if failure.after is not None and failure.after > self.limits.longest_asked:
            message = f"The hub asks to wait {failure.after:.0f} seconds before the next request ({failure.reason})."
            raise UnreachableError(message, "Run it again then; with a token (`hf auth login`) it allows more.")
        if failed >= most:
            hint = "Check the network and any proxy, and run it again: what has arrived is kept."
            raise UnreachableError(f"{self.here.host} cannot be used: {failure.reason}.", hint)
        pause = min(self.limits.longest_pause, self.limits.first_pause * 2.0 ** (failed - 1))
        return pause if failure.after is None else max(pause, failure.after)

    def wait(self, seconds: float) -> None:
        """Raises CancelledError as soon as the person stops it."""
        self.cancel.wait(seconds)
        self.check_cancelled()

    # One request

    def _follow(self, url: str, headers: Mapping[str, str]) -> Answer:
        """The response at the end of the redirects, each of which is checked."""
        client, linked = self._opened(), None
        for _ in range(self.limits.redirects + 1):
            request = client.build_request("GET", url, headers=self._headers(url, headers))
            response = client.send(request, stream=True)
            linked = response.headers if linked is None else linked
            location = response.headers.get("Location")
            if response.status_code not in _MOVED or not location:
                return Answer(response, linked)
            response.close()
            url = self._target(url, location)
        raise TransferError("The hub points in a circle.", "Check HF_ENDPOINT and any proxy, or try again later.")

    def _headers(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        sent = {"User-Agent": "localllm", "Accept-Encoding": "identity", **headers}
        if self.here.token and _origin(url) == _origin(self.here.endpoint):
            sent["Authorization"] = f"Bearer {self.here.token}"
        return sent

    def _target(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        if scheme not in _PORTS or (scheme == "http" and urlsplit(url).scheme == "https"):
            message = f"{urlsplit(url).hostname} points from a secure address to one that is not; this is refused."
            raise TransferError(message, "Check HF_ENDPOINT and any proxy.")
        return target

    def _refused(self, response: Response, repo: str) -> Exception:
        if response.status_code in _PASSING:
            return Transient(f"it answers with {response.status_code}", _retry_after(response))
        url = str(response.url)
        if _origin(url) != _origin(self.here.endpoint):
            message = f"{urlsplit(url).hostname} refuses a file of {repo} with {response.status_code}."
            return RefusedError(message, f"Run it again; if it stays so, see {self.here.page(repo)}.")
        return refusal(response, self.here, repo)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def _retry_after(response: Response) -> float | None:
    """Seconds that the header asks for, as a number or as a date of the server's own clock."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said[:9])
    try:
        until = parsedate_to_datetime(said)
        now = parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None


@contextmanager
def _translated(url: str, cancel: threading.Event) -> Iterator[None]:
    """httpx's exceptions as ours."""
    import httpx2

    host = urlsplit(url).hostname or url
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UnreachableError(f"{url} is not an address ({error}).", "Check HF_ENDPOINT.") from error
    except httpx2.HTTPError as error:
        if cancel.is_set():
            raise CancelledError(STOPPED) from error
        if certificate := _certificate_problem(error):
            now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            hint = f"This machine's clock says {now}: correct it if that is wrong; else see to the proxy's certificate."
            raise UnreachableError(f"The certificate of {host} is refused: {certificate}.", hint) from error
        raise Transient(
            _reason(error, host), unreached=isinstance(error, httpx2.ConnectError | httpx2.ProxyError)
        ) from error


def _certificate_problem(error: BaseException | None) -> str:
    """What is wrong with the other side's certificate, if that is it."""
    found = ""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(getattr(error, "verify_message", "")) or "it cannot be verified"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            found = str(error).partition("certificate verify failed: ")[2].partition(" (")[0] or "it cannot be verified"
        error = error.__cause__ or error.__context__
    return found


def _reason(error: Exception, host: str) -> str:
    import httpx2

    if isinstance(error, httpx2.ProxyError):
        return f"the proxy does not let {host} be reached ({error})"
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError):
        return f"there is no connection to {host} ({error or 'it does not answer'})"
    if isinstance(error, httpx2.TimeoutException):
        return f"{host} does not answer in time"
    return f"the connection to {host} broke off"
