"""What the metadata and tensors of a well-formed GGUF may say: whatever makes llama.cpp abort is refused here first.

llama.cpp answers most nonsense with an exception that it catches itself; these rules cover what it asserts, divides by
or indexes with instead. Sources: src/llama-model.cpp (load_hparams), src/llama-hparams.cpp, src/llama-adapter.cpp,
ggml/src/ggml-cpu (ops.cpp, binary-ops.cpp) and what scripts/fuzz_gguf.py found. A missing key is left to llama.cpp
where it says so itself.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

from localllm.errors import InvalidModelError
from localllm.weights import asserted
from localllm.weights.vocab_checks import check_vocabulary

if TYPE_CHECKING:
    from localllm.weights.gguf import GGUFFile, TensorInfo

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
MAX_WIDTH = 1 << 20
"""Of anything that a tensor has as a dimension; the widest models known have 18,432 to 65,536."""
_F32, _STRING = 6, 8  # enum gguf_type
_NAME = re.compile(r"[\w.-]{0,64}", re.ASCII)
_ROPE_SCALING = ("none", "linear", "yarn", "longrope")
_NOT_MATRICES = {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}
"""Types without a product in ggml-cpu.c (type_traits_cpu)."""

Kinds = Mapping[str, tuple[int, int | None]]
"""Key -> value type and, of an array, element type (enum gguf_type)."""


def check(file: GGUFFile, kinds: Kinds) -> None:
    """Raises InvalidModelError, naming the key or tensor, for what would bring llama.cpp down."""
    checker = _Adapter(file, kinds) if file.kind == "adapter" else _Model(file, kinds)
    checker.check_name()
    checker.check()


class _Checker:
    """A file, and how it is refused."""

    def __init__(self, file: GGUFFile, kinds: Kinds) -> None:
        self.file, self.kinds, self.metadata = file, kinds, file.metadata

    def fail(self, problem: str, hint: str = "Download it again, or convert it again.") -> InvalidModelError:
        return InvalidModelError(f"{self.file.path} {problem}.", hint)

    def wants(self, key: str, kind: int, name: str) -> None:
        """A key, if it is there, has to be of a type: llama.cpp reads it without looking."""
        if key in self.kinds and self.kinds[key][0] != kind:
            raise self.fail(f"is damaged: {key} is not {name}")

    def check_name(self) -> None:
        """The architecture's name begins other keys and is told in messages, so it has to be one."""
        self.wants("general.architecture", _STRING, "a text")
        if not _NAME.fullmatch(self.file.architecture):
            raise self.fail(f"is damaged: general.architecture is {self.file.architecture!r:.40}")

    def check_matrix(self, tensor: TensorInfo) -> None:
        if tensor.type in _NOT_MATRICES and not (tensor.type == "I32" and "tid2eid" in tensor.name):
            raise self.fail(
                f"cannot be used: tensor {tensor.name!r} is of type {tensor.type}, which nothing multiplies"
            )


class _Adapter(_Checker):
    """A LoRA: llama.cpp reads its keys without a look at their types and multiplies whatever matrices it holds."""

    def check(self) -> None:
        for key in ("general.type", "adapter.type"):
            self.wants(key, _STRING, "a text")
        self.wants("adapter.lora.alpha", _F32, "a 32-bit float")
        for name, tensor in self.file.tensors.items():
            if name.endswith((".lora_a", ".lora_b")):
                self._check_factor(name, tensor)

    def _check_factor(self, name: str, tensor: TensorInfo) -> None:
        self.check_matrix(tensor)
        dims = len(tensor.shape)
        if dims != (3 if "_exps." in name else 2):
            raise self.fail(f"is damaged: tensor {name!r} has {dims} dimensions")
        other = self.file.tensors.get(name[:-1] + ("b" if name[-1] == "a" else "a"))
        if other is None:
            raise self.fail(f"is damaged: tensor {name!r} has no counterpart")
        first, second = (tensor, other) if name[-1] == "a" else (other, tensor)
        # An embedding's are laid the other way round, which only the base can tell (engine.adapters).
        fits = first.shape[-2:-1] == second.shape[-1:] or "token_embd." in name
        if not fits or first.shape[:-2] != second.shape[:-2]:
            raise self.fail(f"is damaged: the shapes of {name!r} and its counterpart do not fit")


class _Model(_Checker):
    """A model: hyperparameters, vocabulary, tensors."""

    def check(self) -> None:
        architecture = self.file.architecture
        if architecture in asserted.SILENT or self.metadata.get("tokenizer.ggml.model") in ("bert", "t5"):
            raise self.fail(f"is a {architecture} model, which writes no text", "Choose a model made for chat.")
        parts = self.metadata.get("split.count", 0)
        if isinstance(parts, int) and parts > 1:
            hint = "Join the parts with llama.cpp's `llama-gguf-split --merge`, or download a single file."
            raise self.fail(f"is one of {parts} parts of a model", hint)
        for tensor in self.file.tensors.values():
            self._check_tensor(tensor)
        if f"{architecture}.block_count" in self.metadata:
            self._check_hyperparameters()
        if architecture == "phi3":  # all three are optional to it, and used
            self._check_phi3()
        check_vocabulary(self.metadata, self.kinds, self.fail)

    def _check_phi3(self) -> None:
        for name in self.file.tensors:
            layer = name.removesuffix(".attn_output.weight")
            parts = ("attn_qkv",) if f"{layer}.attn_qkv.weight" in self.file.tensors else ("attn_q", "attn_k", "attn_v")
            for part in parts if layer != name else ():
                if (wanted := f"{layer}.{part}.weight") not in self.file.tensors:
                    raise self.fail(f"is damaged: it has no tensor {wanted!r}")

    def _check_tensor(self, tensor: TensorInfo) -> None:
        if len(tensor.shape) > 1:
            self.check_matrix(tensor)
        elif tensor.type != "F32":  # binary-ops.cpp adds and multiplies float32 with nothing else
            raise self.fail(
                f"cannot be used: tensor {tensor.name!r} has one dimension and type {tensor.type} instead of F32"
            )

    # Hyperparameters

    def integer(self, key: str, low: int, high: int, default: int = 0) -> int:
        """A hyperparameter within bounds. Raises InvalidModelError."""
        name = f"{self.file.architecture}.{key}"
        value = self.metadata.get(name)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(f"is damaged: {name} is not a whole number")
        if not low <= value <= high:
            raise self.fail(f"is damaged: {name} is {value}, and it can be {low} to {high}")
        return value

    def per_layer(self, key: str, n_layers: int, default: int = 0) -> list[int]:
        """A hyperparameter that may be one number or one for each layer."""
        name = f"{self.file.architecture}.{key}"
        value = self.metadata.get(name)
        if not isinstance(value, array):
            return [self.integer(key, 0, MAX_WIDTH, default)] * n_layers
        if value.typecode not in "iIB" or len(value) != n_layers:
            raise self.fail(f"is damaged: {name} does not have a whole number for each of {n_layers} layers")
        if n_layers and not 0 <= min(value) <= max(value) <= MAX_WIDTH:
            raise self.fail(f"is damaged: {name} holds a number beyond 0 to {MAX_WIDTH}")
        return list(value)

    def _check_hyperparameters(self) -> None:
        n_layers = self.integer("block_count", 1, MAX_LAYERS)
        self.integer("nextn_predict_layers", 0, n_layers - 1)
        self.integer("context_length", 1, (1 << 31) - 1)
        width = self.integer("embedding_length", 1, MAX_WIDTH)
        self.integer("embedding_length_out", 0, MAX_WIDTH)
        self.integer("vocab_size", 0, 1 << 24)
        self.per_layer("feed_forward_length", n_layers)
        for key in asserted.POSITIVE.get(self.file.architecture, ()):
            self.integer(key, 1, (1 << 31) - 1)
        if self.integer("attention.sliding_window", 0, 1 << 24, default=1):
            self._check_window_pattern(n_layers)
        self._check_heads(n_layers, width)
        self._check_experts(n_layers)
        self._check_floats()

    def _check_window_pattern(self, n_layers: int) -> None:
        """A model with a window has to use it in some layer (GGML_ASSERT(hparams.is_swa_any()))."""
        name = f"{self.file.architecture}.attention.sliding_window_pattern"
        pattern = self.metadata.get(name, 0)
        windowed = any(pattern[:n_layers]) if isinstance(pattern, array) else pattern != 1
        if not windowed:
            raise self.fail(f"is damaged: {name} leaves no layer to the window")

    def _check_heads(self, n_layers: int, width: int) -> None:
        architecture = self.file.architecture
        heads = self.per_layer("attention.head_count", n_layers)
        kv_heads = self.per_layer("attention.head_count_kv", n_layers)
        for head, kv in zip(heads, kv_heads, strict=True):
            if kv and head % kv:
                raise self.fail(f"is damaged: {head} attention heads cannot share {kv} keys and values")
        if heads[0]:
            self._check_lengths(width // heads[0])
        if architecture in asserted.WITHOUT_ATTENTION:
            return
        if not heads[0]:
            raise self.fail(f"is damaged: {architecture}.attention.head_count is missing or 0")
        if architecture not in asserted.DIFFERENT_LAYERS and len({*zip(heads, kv_heads, strict=True)}) > 1:
            raise self.fail(f"is damaged: the layers of a {architecture} model cannot differ in attention heads")

    def _check_lengths(self, default: int) -> None:
        architecture = self.file.architecture
        keys = self.integer("attention.key_length", 1, MAX_WIDTH, default)
        values = self.integer("attention.value_length", 1, MAX_WIDTH, default)
        if keys != values and architecture in asserted.SAME_LENGTHS:
            raise self.fail(f"is damaged: its attention keys have {keys} numbers and its values {values}")
        self._check_rope("rope.dimension_count", keys)
        self._check_rope("rope.dimension_count_swa", self.integer("attention.key_length_swa", 1, MAX_WIDTH, keys))
        if architecture in asserted.SECTIONS:
            self._check_sections(f"{architecture}.rope.dimension_sections", keys)

    def _check_rope(self, key: str, length: int) -> None:
        rotated = self.integer(key, 2, MAX_WIDTH, length)  # with 0 the loop over a head never ends
        whole = self.file.architecture in asserted.ROTATED_WHOLE and rotated != length
        if rotated > length or rotated % 2 or whole:
            name = f"{self.file.architecture}.{key}"
            raise self.fail(f"is damaged: {name} is {rotated} for attention heads of {length}")

    def _check_sections(self, key: str, length: int) -> None:
        sections = self.metadata.get(key)
        if not isinstance(sections, array) or sections.typecode not in "iI" or len(sections) != 4:
            raise self.fail(f"is damaged: {key} is not four whole numbers")
        if not 0 <= min(sections) <= max(sections) <= length or not any(sections[:3]):
            raise self.fail(f"is damaged: {key} is {list(sections)}")

    def _check_experts(self, n_layers: int) -> None:
        architecture = self.file.architecture
        experts = self.integer("expert_count", 0, MAX_EXPERTS)
        if architecture in ("hunyuan-dense", "hunyuan_vl") and experts <= 1:  # then taken for none
            self.integer("expert_group_count", 0, 0)
            return
        used = max(self.per_layer("expert_used_count", n_layers))
        if used > experts or (used == 0) != (experts == 0):
            raise self.fail(f"is damaged: {architecture}.expert_used_count is {used} of {experts} experts")
        groups = self.integer("expert_group_count", 0, max(0, experts - 1))
        if groups > 1:
            self.integer("expert_group_used_count", 1, groups - 1)
            if experts % groups:
                raise self.fail(f"is damaged: {experts} experts cannot form {groups} groups")

    def _check_floats(self) -> None:
        prefix = f"{self.file.architecture}."
        for key, value in self.metadata.items():
            if (
                key.startswith(prefix)
                and key.endswith("epsilon")
                and isinstance(value, float)
                and not 0 <= value < math.inf
            ):
                raise self.fail(f"is damaged: {key} is {value}")
        scaling = self.metadata.get(f"{prefix}rope.scaling.type", "none")
        if isinstance(scaling, str) and scaling not in _ROPE_SCALING:
            raise self.fail(f"is damaged: {prefix}rope.scaling.type is {scaling[:40]!r}", "It may be too new.")
