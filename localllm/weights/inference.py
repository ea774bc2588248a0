"""How much memory a model takes in llama.cpp, from the header of its file alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from localllm.weights.architectures.base import head_dim, integer
from localllm.weights.gguf import GGUFFile

UBATCH = 512
"""Tokens that llama.cpp computes at once."""
PROCESS = 90_000_000
"""Bytes of Python, llama.cpp and the vocabulary."""


@dataclass(frozen=True)
class ChatFootprint:
    """Bytes of each part of a process that answers."""

    process: int
    weights: int
    """The file's tensors, which are mapped."""
    cache: int
    """Keys and values of the context, float16."""
    buffers: int
    """Of one batch: its logits and the widest activations of a layer."""

    @property
    def total(self) -> int:
        return self.process + self.weights + self.cache + self.buffers

    def parts(self) -> dict[str, int]:
        """Bytes by name."""
        return asdict(self)


def chatting(file: GGUFFile, n_ctx: int) -> ChatFootprint:
    """The memory of a conversation of up to `n_ctx` tokens. Raises InvalidModelError where a number is missing.

    Each layer caches a key and a value of every token; llama.cpp makes room for the whole context at once. Layers with
    a sliding window need less than is counted here.
    """
    kv = integer(file, "attention.head_count_kv", integer(file, "attention.head_count"))
    cache = 2 * 2 * kv * head_dim(file) * n_ctx * integer(file, "block_count")
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    wide = vocabulary + 4 * integer(file, "embedding_length") + 3 * integer(file, "feed_forward_length")
    weights = sum(info.nbytes for info in file.tensors.values())
    return ChatFootprint(PROCESS, weights, cache, 4 * min(UBATCH, n_ctx) * wide)
