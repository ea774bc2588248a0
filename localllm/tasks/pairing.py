"""An MLX folder whose weights train in place of the GGUF's: read, and held against the GGUF before anything starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.store.registry import Registry
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_folder import ModelFolder, read_model_folder
from localllm.weights.mlx_pairing import check_config, check_weights
from localllm.weights.mlx_parameters import Parameter, match, padding


@dataclass(frozen=True)
class MLXBase:
    """A folder that was found to hold the GGUF's weights."""

    folder: ModelFolder
    parameters: dict[str, Parameter]
    sha256: str
    """Of the names and contents of config.json and of the files with weights."""
    difference: float
    """Relative RMS, from the GGUF's weights."""

    def facts(self) -> dict[str, Any]:
        """What an adapter says of what it was trained on."""
        return {"mlx": self.folder.path.name, "mlx_sha256": self.sha256, "mlx_difference": self.difference}


def paired(registry: Registry, path: Path, header: GGUFFile) -> tuple[MLXBase, list[str]]:
    """The folder, and warnings. Raises ModelNotFoundError, InvalidModelError or UnsupportedModelError."""
    folder = read_model_folder(path.expanduser().resolve())
    check_config(folder, header)
    parameters = match(folder, header)
    difference = check_weights(folder, header, parameters)
    name, gguf = folder.path.name, header.path.name
    warnings = [
        f"The weights that train are those of {name}, which differ by {difference:.1%} (relative RMS) from those of "
        f"{gguf}; verification and evaluation are done on the latter."
    ]
    if more := padding(parameters):
        warnings.append(f"{name} has rows for {more} tokens more than {gguf}; they are left out.")
    return MLXBase(folder, parameters, folder_sha256(registry, folder), difference), warnings


def folder_sha256(registry: Registry, folder: ModelFolder) -> str:
    """Of the names and contents of config.json and of the files with weights."""
    lines = "".join(f"{registry.sha256(file)}  {file.name}\n" for file in folder.files)
    return hashlib.sha256(lines.encode()).hexdigest()
