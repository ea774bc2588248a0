"""Files that plain ranges cannot have: through huggingface_hub's own client for Xet's storage, without resuming."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from localllm.errors import TransferError
from localllm.hub.http import Hub
from localllm.hub.listing import RemoteFile, Repository
from localllm.hub.partial import Partial
from localllm.hub.reference import bare, kind_of


def needs_xet(file: RemoteFile) -> bool:
    """Whether the hub gives the file out in no other way: above a size it does not."""
    from huggingface_hub import constants

    return bool(file.xet) and file.size > constants.MAX_HTTP_DOWNLOAD_SIZE


def can_xet(file: RemoteFile) -> bool:
    """Whether it lies there and the client for it is installed."""
    from huggingface_hub.utils._runtime import is_xet_available

    return bool(file.xet) and is_xet_available()


def fetch(hub: Hub, repository: Repository, file: RemoteFile, partial: Partial) -> Iterator[int]:
    """Let the client write the whole file; yields the bytes that are there. Raises TransferError and CancelledError."""
    from huggingface_hub.utils._xet import abort_xet_session

    failure: list[BaseException] = []

    def work() -> None:
        try:
            _get(hub, repository, file, partial)
        except BaseException as error:
            failure.append(error)

    partial.begin_again()
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.3)
        if hub.cancel.is_set():
            abort_xet_session()  # type: ignore[no-untyped-call]
            hub.check_cancelled()
        yield min(file.size, partial.path.stat().st_size)
    hub.check_cancelled()
    if failure:
        message = f"{file.path} cannot be fetched from Xet's storage ({failure[0]})."
        raise TransferError(message, "Run it again; HF_HUB_DISABLE_XET=1 goes without it where that is possible.")


def _get(hub: Hub, repository: Repository, file: RemoteFile, partial: Partial) -> None:
    from huggingface_hub.file_download import xet_get
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    from huggingface_hub.utils._xet import XetFileData, XetTokenType, xet_connection_info_refresh_url

    disable_progress_bars()  # the front ends draw
    route = xet_connection_info_refresh_url(
        token_type=XetTokenType.READ, repo_id=bare(repository.repo), repo_type=kind_of(repository.repo),
        revision=repository.commit, endpoint=hub.here.endpoint,
    )  # fmt: skip
    headers = {"authorization": f"Bearer {hub.here.token}"} if hub.here.token else {}
    xet_get(
        incomplete_path=partial.path,
        xet_file_data=XetFileData(file.xet, route),
        headers=headers,
        expected_size=file.size,
        displayed_filename=file.path,
    )
