"""A strict reader of folders with a model for MLX, as `mlx_lm.convert` writes them; nothing in them is ever run.

config.json                        the model's numbers; "quantization" says how weights are stored
model.safetensors                  or several, with model.safetensors.index.json saying which tensor lies where:
    <path>.weight                  plain: floats (out, in); quantized: words of 32 bits (out, in * bits / 32)
    <path>.scales, <path>.biases   of quantized ones, (out, in / group size): w = scale * q + bias

Names are those of mlx-lm's classes. A folder of Hugging Face has the same layout with plain weights only.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import AdapterError, InvalidModelError, ModelNotFoundError, UnsupportedModelError
from localllm.weights.adapter import read_config, text_module
from localllm.weights.safetensors import read_entries

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
MAX_JSON = 64 << 20
"""Bytes of a JSON file; the index of the largest models has a few."""
_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U32": "<u4"}
_CODE = ("model_file", "auto_map", "custom_pipelines")
"""Keys of config.json by which other programs find Python files to run."""
_EXPECTED = "An MLX model is a folder with config.json and model.safetensors, as `mlx_lm.convert` writes it."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and how it is stored."""

    path: Path
    dtype: str
    """As safetensors calls it: "U32", "BF16"."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    nbytes: int

    def mapped(self) -> NDArray[Any]:
        """Its values, mapped from the file; BF16 as uint16, because numpy has none. F32, F16, BF16 and U32 only."""
        values = np.memmap(self.path, np.dtype(_NUMPY[self.dtype]), "r", self.offset, self.shape)
        return np.require(values, requirements="A")  # a file may put them at any byte


@dataclass(frozen=True)
class ModelFolder:
    """A checked folder: every tensor lies within its file."""

    path: Path
    config: dict[str, Any]
    """Of the text model, where the model also sees."""
    tensors: dict[str, StoredTensor]
    """By their names in mlx-lm's class of the text model."""
    files: tuple[Path, ...]
    """config.json and the files with weights."""


def read_model_folder(path: Path) -> ModelFolder:
    """Read and check a folder's configuration and the headers of its weights.

    Raises ModelNotFoundError where there is none, InvalidModelError for what is no such folder or is damaged, and
    UnsupportedModelError for one that brings code or is quantized in another way than MLX's affine groups.
    """
    if not path.is_dir():
        if path.exists():
            raise InvalidModelError(f"{path} is not a folder.", _EXPECTED)
        raise ModelNotFoundError(f"There is no folder {path}.", "Check the path.")
    if not (path / CONFIG).is_file():
        raise InvalidModelError(f"{path} has no {CONFIG}.", _EXPECTED)
    config = _json(path / CONFIG)
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    _refuse_code(path, config, inner)
    _refuse_other_modes(path, config, inner)
    files = _weight_files(path)
    found: dict[str, StoredTensor] = {}
    for file in files:
        tensors = _tensors(file)
        if twice := sorted(set(found) & set(tensors)):
            raise InvalidModelError(f"{path} has {twice[0]} in two files.", "Copy or download the folder again.")
        found |= tensors
    if inner:  # what belongs to the eyes or ears of the model is left
        found = {text_module(name): t for name, t in found.items() if "language_model." in name or "lm_head" in name}
    return ModelFolder(path, {**config, **inner}, found, (path / CONFIG, *files))


def _json(path: Path) -> dict[str, Any]:
    with _as_model_error():
        if path.stat().st_size > MAX_JSON:
            raise InvalidModelError(f"{path} is larger than {MAX_JSON >> 20} MiB, so it is not what it should be.")
        return read_config(path)


def _refuse_code(path: Path, *configs: dict[str, Any]) -> None:
    for config in configs:
        if key := next((key for key in _CODE if config.get(key)), None):
            raise UnsupportedModelError(
                f"{path / CONFIG} names Python code of its own ({key}), and code of a model is never run.",
                f"If the model is a plain one of its kind, remove {key!r} from {CONFIG}.",
            )


def _refuse_other_modes(path: Path, *configs: dict[str, Any]) -> None:
    """Only MLX's affine groups are known; others call themselves by a method or a mode."""
    hint = "Convert the model again with `mlx_lm.convert`, with -q for 4 bits in the affine mode."
    for config in configs:
        for key in ("quantization", "quantization_config"):
            said = config.get(key)
            if not isinstance(said, dict):
                continue
            if method := said.get("quant_method"):
                raise UnsupportedModelError(f"{path} is quantized by {method!s:.40}, not by MLX.", hint)
            settings = [said, *(value for value in said.values() if isinstance(value, dict))]
            if mode := next((s["mode"] for s in settings if s.get("mode", "affine") != "affine"), None):
                raise UnsupportedModelError(
                    f"{path} is quantized in the mode {mode!s:.40}; only affine can be trained on.", hint
                )


def _weight_files(path: Path) -> list[Path]:
    """The files of the index, or without one those that mlx-lm looks for."""
    if not (path / INDEX).is_file():
        found = sorted(path.glob("model*.safetensors"))
        if not found:
            raise InvalidModelError(f"{path} has no model*.safetensors.", _EXPECTED)
        return found
    places = _json(path / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InvalidModelError(f"{path / INDEX} has no weight_map.", "Copy or download the folder again.")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if not name.endswith(".safetensors") or Path(name).name != name:
            raise InvalidModelError(f"{path / INDEX} names {name[:60]!r}, which is no file of the folder.")
        if not (path / name).is_file():
            raise InvalidModelError(f"{path} lacks {name}.", "Copy or download the folder again.")
    return [path / name for name in names]


def _tensors(path: Path) -> dict[str, StoredTensor]:
    with _as_model_error(), path.open("rb") as file:
        if path.stat().st_size == 0:
            raise InvalidModelError(f"{path} is empty.", "Copy or download it again.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            entries, start = read_entries(path, content, _SIZES)
    return {e.name: StoredTensor(path, e.dtype, e.shape, start + e.start, e.end - e.start) for e in entries}


@contextmanager
def _as_model_error() -> Iterator[None]:
    """What readers of adapters say, said of a model."""
    try:
        yield
    except AdapterError as error:
        raise InvalidModelError(error.message, "Copy or download the folder again.") from error
    except OSError as error:
        raise InvalidModelError(f"{error.filename} cannot be read: {error.strerror or error}.") from error
