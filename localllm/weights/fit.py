"""How much memory a model will take, for training and for inference, from the header of its file alone.

What MLX allocates is counted, array by array (see activations.py for the largest part). What is not counted but
measured, on the training process itself on Linux, is in the constants below; `scripts/fit.py` compares estimates with
measured peaks. That is for float32 weights on a CPU; the other residences are counted in the same way but not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Literal

from localllm.weights.activations import Layer, layer_of
from localllm.weights.architectures import architecture_of
from localllm.weights.architectures.base import integer
from localllm.weights.convert import Other, becomes
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_parameters import Parameter, held_bytes, most_while_loading
from localllm.weights.names import modules
from localllm.weights.quant import GROUP_SIZE

Residence = Literal["quantized", "float32", "streamed"]
"""How frozen weights are held (tune.device)."""
PROCESS = 68_000_000
"""Bytes of Python, NumPy, MLX and its BLAS: the training process of a model of a million weights, without the model."""
HEAP = 1.10
"""Resident bytes over those that MLX counts for activations: the C library keeps part of what was freed."""
LOADED, LOADED_MOST = 0.15, 80_000_000
"""The same of what loading freed: a part of the weights' bytes, and never more than so many bytes."""
WORKING = 2.2
"""Layers' worth of gradients and temporary arrays while one layer is differentiated, over what the layer keeps."""
RECOMPUTING = 3.5
"""The same where layers are computed again: what the layer keeps is then part of it."""
CHUNK_LOGITS, CHUNK_ROWS = 1 << 21, 32
"""Logits of one chunk of the loss, or else positions (tune.loss)."""
LOGIT_COPIES = 8
"""Logits, their exponentials while these are computed, and the gradient."""
SAVING = 2.5
"""Copies of all that a checkpoint holds, while it is written."""


@dataclass(frozen=True)
class TrainingSettings:
    """What of a training run decides its memory."""

    rows: int
    """Of the largest batch."""
    length: int
    """Tokens of its longest row."""
    supervised: float = 0.5
    """Share of its tokens that is learned."""
    rank: int = 16
    targets: tuple[str, ...] = ()
    """Matrices of a layer ("self_attn.q_proj"); empty: those of the architecture."""
    layers: int | None = None
    """Only the last so many."""
    dropout: bool = False
    residence: Residence = "float32"
    other: Other = "16bit"
    """What weights become that MLX cannot hold quantized."""
    optimizer_copies: int = 2
    """Numbers of the optimizer's state for each trained one: 2 of AdamW, 1 of Lion and Muon, about 0 of Adafactor."""
    accumulate: int = 1
    grad_checkpoint: bool = False


@dataclass(frozen=True)
class Footprint:
    """Bytes of each part of a training process."""

    process: int
    """The interpreter and its libraries."""
    weights: int
    """As they are held."""
    lora: int
    optimizer: int
    best: int
    """The copy of the best adapter."""
    gradients: int
    activations: int
    """What the backward pass needs of the forward pass."""
    working: int
    """What the backward pass works with in one layer."""
    logits: int
    """Of the loss, whose gradient is finished before that of the layers begins."""
    loading: int
    """Beside the weights, while the last of them are read."""
    saving: int
    """Beside the adapter, while a checkpoint is written."""

    @property
    def total(self) -> int:
        """The highest it gets: in a step, while loading or while saving."""
        held = self.process + self.weights + self.lora + self.optimizer + self.best
        heap = min(LOADED * self.weights, LOADED_MOST)
        kept = max(HEAP * self.activations, self.activations + heap)
        step = self.gradients + kept + max(HEAP * self.working, self.logits)
        return int(max(held + step, held + heap + self.saving, self.process + self.weights + self.loading))

    def parts(self) -> dict[str, int]:
        """Bytes by name."""
        return asdict(self)


@dataclass(frozen=True)
class Model:
    """What of a file's header decides the memory of a run."""

    file: GGUFFile
    layer: Layer
    layers: int
    vocabulary: int
    shapes: dict[str, tuple[int, ...]]
    """Of the matrices of the last layer, (..., out, in), by their path within it."""
    trained: tuple[str, ...]
    folder: Mapping[str, Parameter] | None = None
    """The weights that are held, where they are not those of the file."""


def model_of(file: GGUFFile, folder: Mapping[str, Parameter] | None = None) -> Model:
    """Raises InvalidModelError or UnsupportedModelError for what cannot be fine-tuned."""
    entry, layers = architecture_of(file), integer(file, "block_count")
    prefix = f"model.layers.{layers - 1}."
    shapes = {path.removeprefix(prefix): s.shape for path, s in modules(file).items() if path.startswith(prefix)}
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    return Model(file, layer_of(file), layers, vocabulary, shapes, entry.trained or tuple(shapes), folder)


def training(model: Model, settings: TrainingSettings) -> Footprint:
    """The memory of a training process, in bytes."""
    targets = [path for path in settings.targets or model.trained if path in model.shapes]
    adapted = model.layers if settings.layers is None else min(settings.layers, model.layers)
    lora = 4 * adapted * sum(_low_rank(model.shapes[path], settings.rank) for path in targets)
    optimizer = lora * settings.optimizer_copies
    activations, working = _activations(model, settings, targets, adapted)
    folder, residence = model.folder, settings.residence
    return Footprint(
        process=PROCESS,
        weights=held_bytes(folder, residence) if folder else weight_bytes(model.file, residence, settings.other),
        lora=lora,
        optimizer=optimizer,
        best=lora,
        gradients=lora * min(settings.accumulate, 2),
        activations=activations,
        working=working,
        logits=_logits(model.vocabulary, round(settings.rows * settings.length * settings.supervised)),
        loading=most_while_loading(folder) if folder else _loading(model.file),
        saving=int(SAVING * (2 * lora + optimizer)),
    )


def weight_bytes(file: GGUFFile, residence: Residence, other: Other = "16bit") -> int:
    """Bytes of all weights as MLX holds them.

    "float32": 4 each. Otherwise affine groups, with a scale and an offset of 16 bits or, "streamed", of 32, and 16 bits
    for each other weight; "streamed" leaves float32 tensors and vectors as they are.
    """
    total, unused = 0, architecture_of(file).unused
    streamed = residence == "streamed"
    for info in file.tensors.values():
        weights = prod(info.shape)
        if info.name in unused:
            continue
        form = becomes(info.type, other)
        if residence == "float32" or (streamed and (info.type == "F32" or len(info.shape) < 2)):
            total += 4 * weights
        elif form.form == "affine" and len(info.shape) > 1:
            total += weights * form.bits // 8 + weights // GROUP_SIZE * (8 if streamed else 4)
        else:
            total += 2 * weights
    return total


def _low_rank(shape: tuple[int, ...], rank: int) -> int:
    *stack, rows, columns = shape
    return prod(stack) * rank * (rows + columns)


def _activations(model: Model, settings: TrainingSettings, targets: list[str], adapted: int) -> tuple[int, int]:
    """Kept by all adapted layers, and what one of them works with; below the first adapted one nothing is kept."""
    length = max(1, settings.length - 1)  # the last token of a row is only a target
    layer = model.layer.kept(length, targets, settings.rank, settings.dropout)
    numbers = adapted * (model.layer.width if settings.grad_checkpoint else layer)
    working = (RECOMPUTING if settings.grad_checkpoint else WORKING) * layer
    tokens = settings.rows * length
    return 4 * tokens * numbers, int(4 * tokens * working)


def _logits(vocabulary: int, supervised: int) -> int:
    """Of one chunk of the loss, of so many positions in all."""
    rows = max(1, min(supervised, max(CHUNK_ROWS, CHUNK_LOGITS // vocabulary)))
    return 4 * LOGIT_COPIES * rows * vocabulary


def _loading(file: GGUFFile) -> int:
    """The largest matrix after the embeddings, which are read first: its float32 values and its blocks."""
    later = [info for info in file.tensors.values() if info.name != "token_embd.weight"]
    return max((4 * prod(info.shape) + info.nbytes for info in later), default=0)
