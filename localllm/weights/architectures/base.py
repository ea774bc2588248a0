"""What one architecture says of itself, and the small words that it is said in.

An entry says only what differs from the plain Llama block: names come from the gguf package's table, and numbers from
the file's metadata. Each `architectures/NAME.py` holds one ENTRY, NAME being GGUF's `general.architecture`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.weights.gguf import GGUFFile

Fact = Callable[[GGUFFile], Any]
"""A setting of the model's class, read from a file."""

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PERMUTED = {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}


@dataclass(frozen=True)
class Sliding:
    """Layers that see only the last tokens: all but every `period`-th one (llama.cpp, llama_hparams::set_swa_pattern).

    The metadata key attention.sliding_window has the number of tokens.
    """

    period: int
    default: int = 0
    """The window where the file does not give it; 0: there is then none."""
    base: str = "rope.freq_base"
    """Metadata key of their rotary base, 10000 where it is missing."""
    scaled: bool = True
    """Whether the scaling of positions applies to them too."""

    def window(self, file: GGUFFile) -> int:
        """Tokens that such a layer sees; 0: all of them."""
        return integer(file, "attention.sliding_window", self.default)

    def layers(self, file: GGUFFile) -> list[bool]:
        """For each layer, whether it is such a one. A file may say it as a number or for each layer."""
        layers = integer(file, "block_count")
        if not self.window(file):
            return [False] * layers
        said = file.metadata.get(f"{file.architecture}.attention.sliding_window_pattern", self.period)
        if isinstance(said, int):
            return [said == 0 or i % said < said - 1 for i in range(layers)]
        if isinstance(said, float | str) or len(said) != layers:
            raise InvalidModelError(f"{file.path} does not say which of its {layers} layers have a sliding window.")
        return [bool(item) for item in said]


@dataclass(frozen=True)
class Architecture:
    """How to read one `general.architecture` as a model of mlx-lm."""

    model_type: str
    """The module of mlx_lm.models that has the model's class."""
    families: str
    """Models that people know by name."""
    modules: tuple[str, ...] = ATTENTION + MLP
    """The matrices of a layer, by their path in MLX."""
    trained: tuple[str, ...] = ()
    """Those that fine-tuning adapts; empty: all of them."""
    config: Mapping[str, Fact] = field(default_factory=dict)
    """Settings of the class beyond those that all share."""
    permuted: Mapping[str, str] = field(default_factory=dict)
    """Projections whose rows the converter permutes, by the metadata key with their number of heads."""
    norm_offset: float = 0.0
    """What the converter adds to the weights of norms."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Parts of MLX's names that differ from Hugging Face's, which the gguf package's table knows."""
    sliding: Sliding | None = None
    windowed_type: str = ""
    """The module to take instead for a file with a sliding window."""
    missing_bias_is_zero: bool = False
    """The class has a bias where some files have no tensor for it."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Metadata keys that, when present and not zero, mean a variant that is not supported, and its name."""
    unused: tuple[str, ...] = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
    """Tensors that are not parameters of the model's class."""


def number(file: GGUFFile, key: str, default: float | None = None) -> int | float:
    """A number of the architecture's metadata.

    Raises InvalidModelError where it is missing and there is no default, UnsupportedModelError where it is an array
    whose items differ.
    """
    value = file.metadata.get(f"{file.architecture}.{key}", default)
    if value is None:
        raise InvalidModelError(f"{file.path} does not say its {key}.")
    if not isinstance(value, int | float):
        items = set(value) if not isinstance(value, str) else set()
        if len(items) != 1:
            raise UnsupportedModelError(f"{file.path} has a {key} for each layer, which cannot be fine-tuned yet.")
        value = next(iter(items))
    if isinstance(value, str):
        raise InvalidModelError(f"{file.path} has text where its {key} should be.")
    return value


def integer(file: GGUFFile, key: str, default: int | None = None) -> int:
    """The same as an integer."""
    return int(number(file, key, default))


def head_dim(file: GGUFFile) -> int:
    """Width of one attention head."""
    heads = integer(file, "attention.head_count")
    return integer(file, "attention.key_length", integer(file, "embedding_length") // max(heads, 1))


def from_key(key: str, default: float | None = None) -> Fact:
    """A number by its metadata key."""
    return lambda file: number(file, key, default)


def constant(value: Any) -> Fact:
    """What is the same in every file, or what llama.cpp does whatever the file says."""
    return lambda file: value


def nonzero(key: str, otherwise: Fact) -> Fact:
    """A number by its key; llama.cpp takes 0, like a missing key, for "not set"."""
    return lambda file: number(file, key, 0.0) or otherwise(file)


def query_scalar(large: int) -> Fact:
    """Gemma's attention is scaled by this ** -0.5: the head's width, or in the model with `large` layers (27B) the
    width over the heads (llama.cpp, src/models/gemma2.cpp and gemma3.cpp)."""

    def fact(file: GGUFFile) -> int:
        if integer(file, "block_count") == large:
            return integer(file, "embedding_length") // integer(file, "attention.head_count")
        return head_dim(file)

    return fact
