"""Where everything lives. Pure: computes paths, creates nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The folder that holds what the program keeps: LOCALLLM_HOME, or the platform's data folder."""

    root: Path

    @classmethod
    def locate(cls) -> Home:
        """LOCALLLM_HOME if it is set, else the platform's folder for application data."""
        if chosen := os.environ.get("LOCALLLM_HOME"):
            return cls(Path(chosen).expanduser())
        import platformdirs

        return cls(platformdirs.user_data_path("localllm", appauthor=False))

    @property
    def config_file(self) -> Path:
        return self.root / "config.toml"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def pulled(self) -> Path:
        """One manifest for each model that was pulled; its files lie in the hub's cache."""
        return self.root / "pulled"

    @property
    def folders_file(self) -> Path:
        """The folders of other programs' models that were added to the known ones."""
        return self.root / "folders.json"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def runs(self) -> Path:
        """One folder for each fine-tuning run in progress."""
        return self.root / "runs"

    @property
    def chats(self) -> Path:
        """The conversations of the terminal app, one SQLite file."""
        return self.root / "chats.sqlite3"

    @property
    def cache(self) -> Path:
        """Whatever can be made again: file hashes, the compiled BLAS shim."""
        return self.root / "cache"


def builtin_models() -> Path:
    """The folder of model cards and the built-in model: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "models"
    return packaged if packaged.is_dir() else package.parent / "models"
