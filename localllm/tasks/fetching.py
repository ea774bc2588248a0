"""Fetching a model that was picked from what a repository offers; a fetch that did not come to its end is remembered.

The files that have arrived lie in the hub's cache, so asking for the same again goes on where it was left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from localllm.errors import LocalLLMError
from localllm.hub.http import Hub, Limits
from localllm.hub.reference import looks_remote, parse
from localllm.hub.surroundings import Surroundings, surroundings
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.browsing import Listed, verdict
from localllm.tasks.left import Left
from localllm.tasks.pull import Offered, Pulled, PullEvent, PullRequest, pull
from localllm.tasks.remote import Choice, Offer, look, named

_LEFT: Left[PullRequest] = Left("download.json", PullRequest)


def names_repository(text: str) -> str:
    """The reference that a search text is, where it can name something on the hub; nothing where it cannot."""
    text = text.strip()
    return text if "/" in text and looks_remote(text) else ""


def look_up(
    reference: str,
    n_ctx: int | None = None,
    mlx: bool = False,
    cancel: threading.Event | None = None,
    here: Surroundings | None = None,
    limits: Limits | None = None,
) -> Offer:
    """Ask the hub what a repository, or one of the catalog by its name, has for this machine.

    Raises UsageError, HubError, ModelError and CancelledError.
    """
    here = here or surroundings()
    with Hub(here, limits, cancel) as hub:
        return look(hub, named(reference, here, mlx=mlx), n_ctx)


def rows_of(offer: Offer) -> list[Listed]:
    """The choices of a repository as rows, smallest first."""
    header, card = offer.header, offer.named.card
    context = header.metadata.get(f"{header.architecture}.context_length") if header else None
    facts: dict[str, Any] = {key: card[key] for key in ("languages", "tools", "thinking", "title") if key in card}
    facts |= {"license": card.get("license") or offer.repository.license, "description": card.get("description", "")}
    return [
        Listed(
            request_for(offer, choice).reference, "hub", "hub", choice.variant.size, choice.variant.quantization,
            context if isinstance(context, int) else None, choice.needs, offer.n_ctx,
            verdict(choice.needs, offer.memory), format="mlx" if offer.named.mlx else "gguf",
            repo=offer.repository.repo, facts=facts,
        )
        for choice in offer.choices
    ]  # fmt: skip


def request_for(offer: Offer, choice: Choice, force: bool = False) -> PullRequest:
    """What to ask for to get this choice: by its quantization, or by its file where several have the same."""
    repo, variant = offer.repository.repo, choice.variant
    revision = offer.named.reference.revision
    if offer.named.mlx:
        return PullRequest(repo, revision, mlx=True, n_ctx=offer.n_ctx, force=force)
    same = [other for other in offer.choices if other.variant.quantization == variant.quantization]
    by_name = f"{repo}:{variant.quantization}"
    reference = by_name if len(same) == 1 and _is_reference(by_name) else f"{repo}/{variant.files[0].path}"
    return PullRequest(reference, revision, n_ctx=offer.n_ctx, force=force)


def fetch(
    registry: Registry,
    request: PullRequest,
    cancel: threading.Event | None = None,
    here: Surroundings | None = None,
    limits: Limits | None = None,
) -> Iterator[PullEvent]:
    """The events of tasks.pull; from the first one to the last the request is remembered. Raises as that."""
    for event in pull(registry, request, cancel, here, limits):
        if isinstance(event, Offered):
            _LEFT.remember(registry.home, request)
        if isinstance(event, Pulled):
            forget(registry.home)
        yield event


def left(home: Home) -> PullRequest | None:
    """What was asked for and has not come whole."""
    return _LEFT.of(home)


def forget(home: Home) -> None:
    """Do not offer to go on with it; what has arrived stays until `localllm prune`."""
    _LEFT.forget(home)


def _is_reference(text: str) -> bool:
    try:
        return bool(parse(text).quantization)
    except LocalLLMError:
        return False
