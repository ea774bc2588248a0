"""Requests: what may be waited for, what an exception of the network means, and where they stop."""

from __future__ import annotations

import ssl

import httpx2
import pytest

from localllm.errors import TransferError, UnreachableError
from localllm.hub.http import Hub, Limits, Transient, _retry_after, _translated
from localllm.hub.surroundings import Surroundings
from tests.hub.server import HubServer


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:10 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),  # our own clock may be wrong
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_a_number_or_a_date_by_the_servers_clock(headers: dict[str, str], seconds: float | None) -> None:
    assert _retry_after(httpx2.Response(429, headers=headers)) == seconds


def test_pauses_grow_and_end(here: Surroundings) -> None:
    hub, failure = Hub(here, Limits(attempts=4, first_pause=1, longest_pause=3)), Transient("it is busy")
    assert [hub.pause(failure, failed) for failed in (1, 2, 3)] == [1, 2, 3]
    assert hub.pause(Transient("it is busy", 20), 1) == 20
    with pytest.raises(UnreachableError, match="it is busy"):
        hub.pause(failure, 4)
    with pytest.raises(UnreachableError):  # no network: a person need not wait to hear it
        hub.pause(Transient("there is no connection", unreached=True), 2)


def raised_within(error: Exception) -> BaseException:
    with pytest.raises((UnreachableError, Transient)) as info, _translated("https://hub.example/x", Hub(HERE).cancel):
        raise error
    return info.value


HERE = Surroundings("https://hub.example", None)  # type: ignore[arg-type]


def test_a_refused_certificate_points_to_the_clock() -> None:
    error = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_message = "certificate is not yet valid"
    error.__cause__ = cause
    said = raised_within(error)
    assert isinstance(said, UnreachableError)
    assert "certificate is not yet valid" in said.message
    assert "This machine's clock says" in said.hint


@pytest.mark.parametrize(
    "error, words",
    [
        (httpx2.ConnectError("Name or service not known"), "no connection to hub.example"),
        (httpx2.ReadTimeout("x"), "does not answer in time"),
        (httpx2.RemoteProtocolError("x"), "broke off"),
        (httpx2.ProxyError("407"), "the proxy does not let"),
    ],
)
def test_what_may_pass_is_transient(error: Exception, words: str) -> None:
    said = raised_within(error)
    assert isinstance(said, Transient)
    assert words in said.reason


def test_redirects_in_a_circle_end(server: HubServer, hub: Hub) -> None:
    server.fault("loop", "hub", times=20)
    with pytest.raises(TransferError, match="in a circle"), hub.get(f"{server.endpoint}/api/x", "me/m"):
        pass
    assert len(server.asked) == hub.limits.redirects + 1


def test_an_endpoint_that_is_no_address_is_said() -> None:
    with Hub(Surroundings("nonsense", HERE.cache)) as hub, pytest.raises(UnreachableError, match="not an address"):
        hub.json("nonsense/api/models", "me/m")
