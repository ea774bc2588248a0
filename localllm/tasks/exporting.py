"""Export: an adapter for other programs, or merged into its base for those that know no adapters.

    gguf     one file, for llama.cpp and what is built on it
    peft     a folder for peft.PeftModel.from_pretrained
    mlx      a folder for mlx_lm.generate --adapter-path
    merged   a whole model in one GGUF, the adapters added into its weights
    ollama   a folder with a Modelfile, the base beside it (a hard link where the disk allows, else a copy) and the
             adapter, or the merged model where Ollama's llama.cpp could not attach the adapter

Everything is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localllm.errors import CancelledError, UsageError
from localllm.store.registry import Registry
from localllm.tasks.exportable import Source, base_of, find_source
from localllm.tasks.foreign import not_attachable
from localllm.tasks.merging import Merged, MergeProgress, MergeRequest, MergeStarted, merge
from localllm.tasks.modelfile import chat_of, modelfile
from localllm.tasks.outputs import Output, link_or_copy
from localllm.weights import mlx_lm, peft
from localllm.weights.adapter import GGUF_NAME
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf

Target = Literal["gguf", "peft", "mlx", "merged", "ollama"]
TARGETS: tuple[Target, ...] = ("gguf", "peft", "mlx", "merged", "ollama")
ENOUGH_KEPT = 0.9
"""Below this share of the change in some tensor, a merged model hardly does what the adapter did."""
BASE_NAME, MERGED_NAME, MODELFILE = "base.gguf", "merged.gguf", "Modelfile"


@dataclass(frozen=True)
class ExportRequest:
    """What the person asked for."""

    adapters: Sequence[tuple[str, float]]
    """Names or paths, and how strongly each counts; several only when they are merged."""
    to: Target
    out: Path
    model: str | None = None
    """None: the base that the first adapter names."""
    type: str | None = None
    """Of a merged model's tensors; None keeps each as it is."""
    imatrix: Path | None = None
    copy: bool = False
    """Copy the base for Ollama even where a hard link would do."""
    overwrite: bool = False


@dataclass(frozen=True)
class ExportStarted:
    """The adapter was read, and it fits the base."""

    adapters: list[str]
    to: Target
    model: str


@dataclass(frozen=True)
class ExportNote:
    """Something to know that does not stop the export."""

    message: str


@dataclass(frozen=True)
class Exported:
    """It is there."""

    to: Target
    path: Path
    files: dict[str, int]
    """Name -> bytes."""
    kept: float | None
    """Merged: share of the change that rounding left in the tensor that lost most of it."""
    kept_tensor: str | None
    kept_overall: float | None
    """Merged: the same share, of all changed tensors together."""
    cosine: float | None
    """Merged: the least, over tensors, between the change that was wanted and the one that was stored."""
    seconds: float


ExportEvent = ExportStarted | ExportNote | MergeStarted | MergeProgress | Exported


def export(registry: Registry, request: ExportRequest, cancel: threading.Event | None = None) -> Iterator[ExportEvent]:
    """Write an adapter for another program. The last event is Exported.

    Raises UsageError, AdapterError, ModelError, EngineError and StorageError; what lay at `out` is then still there.
    """
    start = time.perf_counter()
    _check(request)
    model = registry.model(request.model) if request.model else base_of(registry, request.adapters[0][0])
    if request.out.exists() and request.out.samefile(model.path):
        raise UsageError(f"{request.out} is the base itself.", "Choose another --out.")
    base = read_header(model.path)
    sources = [find_source(registry, name, scale, model, base) for name, scale in request.adapters]
    yield ExportStarted([source.name for source in sources], request.to, model.name)
    folder = request.to in ("peft", "mlx", "ollama")
    with Output(request.out, folder=folder, overwrite=request.overwrite) as output:
        merged = yield from _written(request, sources, output, cancel)
        if cancel is not None and cancel.is_set():
            raise CancelledError("Stopped before the export was complete.")
        files = output.publish()
    yield Exported(
        to=request.to,
        path=request.out,
        files=files,
        kept=merged.kept if merged else None,
        kept_tensor=merged.kept_tensor if merged else None,
        kept_overall=merged.kept_overall if merged else None,
        cosine=merged.cosine if merged else None,
        seconds=time.perf_counter() - start,
    )


def _written(
    request: ExportRequest, sources: Sequence[Source], output: Output, cancel: threading.Event | None
) -> Generator[ExportEvent, None, Merged | None]:
    """Write what was asked for; what was merged, if anything was."""
    for source in sources:
        if _is_read(source, request.to):
            yield from map(ExportNote, source.found.notes)
    if request.to == "merged":
        return (yield from _merged(request, sources, output.path, output.scratch, cancel))
    if request.to == "ollama":
        return (yield from _ollama(request, sources, output, cancel))
    _adapter(request, sources[0], output.path)
    return None


def _check(request: ExportRequest) -> None:
    if len(request.adapters) > 1 and request.to != "merged":
        raise UsageError("Only --to merged takes several adapters.", "Export them one by one, or merge them.")
    if request.to != "merged" and (request.type or request.imatrix):
        raise UsageError("--type and --imatrix are about the weights of a merged model.", "Add --to merged.")
    if request.to != "ollama" and request.copy:
        raise UsageError("--copy is about the base beside a Modelfile.", "Add --to ollama.")


def _is_read(source: Source, to: Target) -> bool:
    """Whether more than its file is needed."""
    return to in ("peft", "mlx") or (source.gguf if to == "merged" else source.as_it_is) is None


def _adapter(request: ExportRequest, source: Source, out: Path) -> None:
    """One adapter as a file or folder of another program."""
    if request.to == "mlx":
        mlx_lm.write(out, source.adapter)
    elif request.to == "peft":
        peft.write(out, source.adapter, source.base)
    elif source.shares_output:
        raise not_attachable(source.name, source.base, request.model or source.model.name)
    else:
        _write_gguf(source, out)


def _write_gguf(source: Source, out: Path) -> None:
    """The file as it is, with all it says of itself, or one of the strength that was asked for."""
    if source.as_it_is:
        shutil.copyfile(source.as_it_is, out)
        return
    base = {"localllm.base.name": source.model.name, "localllm.base.sha256": source.registry.sha256(source.model.path)}
    write_gguf(out, source.adapter, source.base, {"general.name": Path(source.name).stem, **base})


def _merged(
    request: ExportRequest, sources: Sequence[Source], out: Path, scratch: Path, cancel: threading.Event | None
) -> Generator[ExportEvent, None, Merged]:
    """Add the adapters into the base; those from elsewhere as files that nothing but the merge opens."""
    first = sources[0]
    named = []
    for number, source in enumerate(sources):
        name = source.name
        if source.gguf is None:
            path = scratch / str(number) / f"{Path(name).stem}.gguf"
            path.parent.mkdir()
            write_gguf(path, source.found.adapter, source.base, {}, attached=False)
            name = str(path)
        named.append((name, source.scale))
    merged: Merged | None = None
    asked = MergeRequest(str(first.model.path), named, out, request.type, request.imatrix, overwrite=True)
    for event in merge(first.registry, asked, cancel):
        if isinstance(event, Merged):
            merged = event
        else:
            yield event
    assert merged is not None
    if merged.kept_overall < ENOUGH_KEPT:
        yield ExportNote(
            f"Rounding left only {max(0.0, merged.kept_overall):.0%} of what the adapter changes, least in "
            f"{merged.kept_tensor}: choose more bits with --type (Q8_0, F16), or use the adapter without merging."
        )
    return merged


def _ollama(
    request: ExportRequest, sources: Sequence[Source], output: Output, cancel: threading.Event | None
) -> Generator[ExportEvent, None, Merged | None]:
    """The folder with its Modelfile; what was merged, where the adapter could not be attached."""
    source, base_name, adapter_name, merged = sources[0], BASE_NAME, None, None
    if source.shares_output:
        base_name = MERGED_NAME
        yield ExportNote("It changes an embedding that is the output too, so the merged model is written.")
        merged = yield from _merged(request, sources, output.path / base_name, output.scratch, cancel)
    else:
        adapter_name = GGUF_NAME
        _write_gguf(source, output.path / adapter_name)
        link_or_copy(source.model.path, output.path / base_name, copy=request.copy, cancel=cancel)
    chat = chat_of(source.base)
    if chat is None and "tokenizer.chat_template" in source.base.metadata:
        yield ExportNote("The Modelfile has no TEMPLATE: Ollama has to know the one in the base.")
    text = modelfile(base_name, adapter_name, chat, source.model.sampling)
    (output.path / MODELFILE).write_text(text, "utf-8")
    return merged
