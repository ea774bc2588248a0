"""How much memory a model takes in llama.cpp, from the header of its file alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from localllm.weights.architectures.base import head_dim, integer
from localllm.weights.gguf import GGUFFile

UBATCH = 512
"""Tokens that llama.cpp computes at once."""
PROCESS = 62_000_000
"""Bytes of Python and llama.cpp, measured on Linux with models of 1 to 500 million weights, computed on the CPU."""
TOKEN = 520
"""Bytes of one entry of the vocabulary, in llama.cpp's tables and in ours, measured with 4,096 to 151,936 of them."""


@dataclass(frozen=True)
class ChatFootprint:
    """Bytes of each part of a process that answers."""

    process: int
    weights: int
    """The file's tensors, which are mapped."""
    cache: int
    """Keys and values of the context, float16."""
    vocabulary: int
    buffers: int
    """Of one batch: the widest activations of a layer. Room for its logits is reserved, but only a row is touched."""

    @property
    def total(self) -> int:
        """Once the whole context was used."""
        return self.process + self.weights + self.cache + self.vocabulary + self.buffers

    def parts(self) -> dict[str, int]:
        """Bytes by name."""
        return asdict(self)


def chatting(file: GGUFFile, n_ctx: int, n_slots: int = 1) -> ChatFootprint:
    """The memory of `n_slots` answers at a time, each with its prompt of up to `n_ctx` tokens.

    Each layer caches a key and a value of every token; llama.cpp makes room for the whole context at once. Layers with
    a sliding window need less than is counted here. Raises InvalidModelError where a number is missing.
    """
    kv = integer(file, "attention.head_count_kv", integer(file, "attention.head_count"))
    cache = 2 * 2 * kv * head_dim(file) * n_ctx * n_slots * integer(file, "block_count")
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    wide = 4 * integer(file, "embedding_length") + 3 * integer(file, "feed_forward_length")
    weights = sum(info.nbytes for info in file.tensors.values())
    buffers = 4 * min(UBATCH, n_ctx * n_slots) * wide
    return ChatFootprint(PROCESS, weights, cache, TOKEN * vocabulary, buffers)
