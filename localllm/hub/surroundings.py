"""Where the hub is, where its cache lies and who asks: what huggingface_hub reads from the environment, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from localllm.errors import AccessError

HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
PAGES = "https://huggingface.co"


@dataclass(frozen=True)
class Surroundings:
    """What huggingface_hub would use here."""

    endpoint: str
    """HF_ENDPOINT, or the public hub; without a slash at the end."""
    cache: Path
    """HF_HUB_CACHE, or "hub" within HF_HOME."""
    offline: bool = False
    """HF_HUB_OFFLINE."""
    token: str | None = field(default=None, repr=False)
    """HF_TOKEN, or that of `hf auth login`."""
    symlinks: bool = True
    """False with HF_HUB_DISABLE_SYMLINKS."""
    timeout: float = 10.0
    """HF_HUB_DOWNLOAD_TIMEOUT: seconds without a byte."""

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or self.endpoint

    def page(self, repo: str) -> str:
        """The page of a repository, for a person to visit."""
        return f"{self.endpoint}/{repo}"


def surroundings() -> Surroundings:
    """Those of this process. Raises AccessError where a token is asked for and cannot be had."""
    from huggingface_hub import constants, get_token

    try:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN or constants.HF_HUB_OFFLINE else get_token()
    except NotADirectoryError:  # there is none in a cache that is no folder, which is said when it is to be written
        token = None
    except Exception as error:  # it may ask a service for one, which fails in ways of its own
        message = f"No token could be had for the hub ({error})."
        raise AccessError(message, "Set HF_TOKEN, or run `hf auth login` again.") from error
    return Surroundings(
        endpoint=constants.ENDPOINT,
        cache=Path(constants.HF_HUB_CACHE).expanduser().absolute(),
        offline=constants.HF_HUB_OFFLINE,
        token=token,
        symlinks=not constants.HF_HUB_DISABLE_SYMLINKS,
        timeout=float(constants.HF_HUB_DOWNLOAD_TIMEOUT),
    )
