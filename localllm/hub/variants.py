"""Which models a repository holds: GGUF files grouped by quantization, parts of one model together, or a folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from localllm.errors import RemoteNotFoundError, UsageError
from localllm.hub.listing import RemoteFile, Repository

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_QUANT = re.compile(
    r"(?i)(?:^|[-._])(?P<name>(?:UD-)?(?:I?Q\d+(?:_\w+)?|TQ\d_\d)|MXFP4(?:_MOE)?|BF16|FP?16|FP?32)(?=[-.]|$)"
)
_ASIDE = re.compile(r"(?i)(^|[-._])(mmproj|imatrix|vocab|lora|adapter|draft)([-._]|$)")
"""GGUF files that are not a model: the eyes of one, a matrix for quantizing, a vocabulary, an adapter."""
_UNQUANTIZED = ("BF16", "F16", "FP16", "F32", "FP32")
_FOLDER = re.compile(r"(?i)[^/]+\.(safetensors|json|txt|jinja|model|tiktoken)|LICENSE[^/]*|README\.md")
"""Files of a folder that are fetched: what a model needs and nothing that could be run."""


@dataclass(frozen=True)
class Variant:
    """One of the models that a repository offers."""

    quantization: str
    """In capitals; the file's stem where the name does not tell, "folder" for one of safetensors."""
    files: tuple[RemoteFile, ...]
    """In the order of the parts."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def is_quantized(self) -> bool:
        return self.quantization not in _UNQUANTIZED


def gguf_variants(repository: Repository) -> list[Variant]:
    """Models in GGUF, smallest first; those of which a part is missing are left out."""
    single: list[Variant] = []
    parts: dict[tuple[str, int], dict[int, RemoteFile]] = defaultdict(dict)
    for file in repository.files:
        name = PurePosixPath(file.path).name
        if not name.lower().endswith(".gguf") or _ASIDE.search(name[:-5]):
            continue
        if part := _PART.fullmatch(file.path):
            parts[part["stem"], int(part["count"])][int(part["number"])] = file
        else:
            single.append(Variant(_quantization(name[:-5]), (file,)))
    whole = [
        Variant(_quantization(PurePosixPath(stem).name), tuple(found[n] for n in range(1, count + 1)))
        for (stem, count), found in parts.items()
        if count and sorted(found) == list(range(1, count + 1))
    ]
    return sorted(single + whole, key=lambda variant: (variant.size, variant.quantization))


def left_out(repository: Repository) -> list[str]:
    """GGUF files of which none is a whole model: parts without the others, and what belongs to a model."""
    return [file.path for file in repository.files if file.path.lower().endswith(".gguf")]


def folder_variant(repository: Repository) -> Variant | None:
    """The whole folder, when it holds a model as safetensors."""
    names = {file.path for file in repository.files}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        return None
    files = [file for file in repository.files if _FOLDER.fullmatch(file.path)]
    return Variant("folder", tuple(sorted(files, key=lambda file: (file.size, file.path))))


def is_mlx(repository: Repository) -> bool:
    """Whether the repository says of itself that it is for MLX."""
    return "mlx" in repository.tags or repository.repo.startswith("mlx-community/")


def chosen(repository: Repository, variants: Sequence[Variant], quantization: str = "", file: str = "") -> Variant:
    """The variant that a person named. Raises RemoteNotFoundError with those that exist, UsageError for several."""
    if file:
        found = [v for v in variants if file in {part.path for part in v.files}]
        what = file
    else:
        found = [v for v in variants if v.quantization.lower() == quantization.lower()]
        found = found or [v for v in variants if v.quantization.lower().endswith(f"-{quantization.lower()}")]
        what = quantization
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(f"{repository.repo}/{v.files[0].path}" for v in found[:4])
        raise UsageError(f"{repository.repo} has several models as {what}.", f"Name one of its files: {names}.")
    there = ", ".join(dict.fromkeys(v.quantization for v in variants)) or "none"
    raise RemoteNotFoundError(f"{repository.repo} has no {what}.", f"There are: {there}.")


def _quantization(stem: str) -> str:
    """The last part of a name that is one, in capitals; without one the name itself."""
    found = [match["name"] for match in _QUANT.finditer(stem)]
    return found[-1].upper() if found else stem
