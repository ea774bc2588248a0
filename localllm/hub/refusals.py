"""What the hub refuses, as one sentence with the page to visit; huggingface_hub tells the cases apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localllm.errors import AccessError, HubError, RemoteNotFoundError, UnreachableError
from localllm.hub.surroundings import Surroundings

if TYPE_CHECKING:
    from httpx2 import Response

_TOLD = ("X-Error-Code", "X-Error-Message")


class RefusedError(UnreachableError):
    """An answer that says no without saying what is wrong."""


def refusal(response: Response, here: Surroundings, repo: str) -> HubError:
    """The error that a response of 400 or more stands for. Only its headers are looked at: a body has no bounds."""
    from httpx2 import Response
    from huggingface_hub import errors
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    page = here.page(repo)
    told = {name: response.headers[name] for name in _TOLD if name in response.headers}
    try:
        hf_raise_for_status(Response(response.status_code, headers=told, content=b"", request=response.request))
    except errors.GatedRepoError:
        return _gated(here, repo, page)
    except errors.RepositoryNotFoundError:
        return _not_found(here, repo, page)
    except errors.RevisionNotFoundError:
        return RemoteNotFoundError(f"{repo} has no such revision.", f"Its branches and tags are on {page}/tree/main.")
    except errors.RemoteEntryNotFoundError:
        return RemoteNotFoundError(f"{repo} no longer has that file.", f"See {page}/tree/main and run it again.")
    except errors.DisabledRepoError:
        return AccessError(f"{repo} has been disabled on the hub.", "Choose another repository.")
    except errors.HfHubHTTPError:
        pass
    if response.status_code == 401:
        return _not_accepted(here) if here.token else _not_found(here, repo, page)
    if response.status_code == 403:
        why = response.headers.get("X-Error-Message", "")
        return AccessError(f"The hub refuses access to {repo}{f': {why}' if why else ''}.", f"Visit {page}.")
    if response.status_code == 404:
        return _not_found(here, repo, page)
    return RefusedError(f"The hub answered with {response.status_code} for {repo}.", f"Try again later; see {page}.")


def _gated(here: Surroundings, repo: str, page: str) -> AccessError:
    if here.token:
        return AccessError(f"{repo} is gated, and your token has no access.", f"Ask for it on {page} and run it again.")
    hint = f"Accept its conditions on {page}, then run `hf auth login` or set HF_TOKEN, and run it again."
    return AccessError(f"{repo} is gated, and there is no token.", hint)


def _not_found(here: Surroundings, repo: str, page: str) -> RemoteNotFoundError:
    if here.token:
        return RemoteNotFoundError(f"There is no repository {repo}, or your token cannot see it.", f"Look at {page}.")
    hint = "Check the name; if it is private, run `hf auth login` or set HF_TOKEN."
    return RemoteNotFoundError(f"There is no repository {repo}, or it is private.", hint)


def _not_accepted(here: Surroundings) -> AccessError:
    hint = f"Make a new one on {here.endpoint}/settings/tokens, then run `hf auth login` or set HF_TOKEN."
    return AccessError("The hub does not accept your token: it may have expired or been revoked.", hint)
