"""How much memory a model takes in llama.cpp, from the header of its file alone.

Counted are the sizes that llama.cpp itself allocates (its log says them) and of these only what is touched: it reserves
the logits of a whole batch, of which a row for each answer is written. Measured are the constants below;
`scripts/fit_inference.py` compares estimates with the resident memory of real processes.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict, dataclass

from localllm.errors import InvalidModelError
from localllm.weights import repacking
from localllm.weights.architectures.base import head_dim, integer
from localllm.weights.gguf import GGUFFile, StringArray
from localllm.weights.repacking import EMBEDDING

BATCH = 512
"""Tokens that llama.cpp computes at once (engine.llama)."""
CELLS = 256
"""llama.cpp rounds the tokens of each answer up to a multiple of this."""
PROCESS = 53_000_000
"""Bytes of Python, NumPy and llama.cpp with its graph, measured on Linux with models of 1 to 1,200 million weights,
computed on the CPU."""
TOKEN, MERGE = 150, 135
"""Bytes of llama.cpp's tables for each token and each merge of the vocabulary, measured with those of seven models,
of 32,000 to 262,144 tokens."""
CANDIDATE = 16
"""Bytes of a token that an answer's sampler may choose: its id, logit and probability, and its logit in the batch."""
_FLOAT = 4


@dataclass(frozen=True)
class ChatFootprint:
    """Bytes of each part of a process that answers."""

    process: int
    weights: int
    """The file's tensors, which are mapped."""
    copies: int
    """Of matrices that the CPU wants in another order; the system can take the file's own pages of these back."""
    cache: int
    """Keys and values of the context; llama.cpp writes zeros into all of it at once."""
    vocabulary: int
    buffers: int
    """Of one batch: the widest activations of a layer, the mask of attention and the logits of one token."""

    @property
    def total(self) -> int:
        """What is resident once the whole context was used, where memory is plentiful."""
        return self.process + self.weights + self.copies + self.cache + self.vocabulary + self.buffers

    @property
    def needed(self) -> int:
        """What has to stay resident for the model to answer at its speed."""
        return self.total - self.copies

    def parts(self) -> dict[str, int]:
        """Bytes by name."""
        return asdict(self)


def chatting(
    file: GGUFFile,
    n_ctx: int,
    n_slots: int = 1,
    *,
    exact: bool = False,
    repacked: frozenset[str] | None = None,
) -> ChatFootprint:
    """The memory of `n_slots` answers at a time, each with its prompt of up to `n_ctx` tokens.

    `exact`: as of `LlamaEngine.open`; `repacked`: types of tensors that are copied (default: those of this machine).
    Raises InvalidModelError or UnsupportedModelError where a number is missing or no number.
    """
    if EMBEDDING not in file.tensors:
        raise InvalidModelError(f"{file.path} has no token embeddings.")
    cells = n_slots * -(-n_ctx // CELLS) * CELLS
    vocabulary = file.tensors[EMBEDDING].shape[0]
    return ChatFootprint(
        process=PROCESS,
        weights=sum(info.nbytes for info in file.tensors.values()),
        copies=repacking.copied_bytes(file, repacking.types_here() if repacked is None else repacked),
        cache=(_FLOAT if exact else 2) * cells * _cached(file),
        vocabulary=_tables(file, vocabulary),
        buffers=_batch(file, cells // n_slots, exact) + CANDIDATE * vocabulary * n_slots,
    )


def _cached(file: GGUFFile) -> int:
    """Numbers of one token in the cache: a key and a value of each head that has its own, in all layers."""
    layers, key = integer(file, "block_count"), head_dim(file)
    width = key + integer(file, "attention.value_length", key)
    heads = file.metadata.get(f"{file.architecture}.attention.head_count_kv")
    if isinstance(heads, array):  # a number for each layer, 0 where it has no attention
        return width * int(sum(heads[:layers]))
    return width * layers * integer(file, "attention.head_count_kv", integer(file, "attention.head_count"))


def _tables(file: GGUFFile, vocabulary: int) -> int:
    """Of the vocabulary, in llama.cpp and as the header holds it."""
    arrays = [value for value in file.metadata.values() if not isinstance(value, int | float | str)]
    held = sum(a.nbytes if isinstance(a, StringArray) else len(a) * a.itemsize for a in arrays)
    merges = file.metadata.get("tokenizer.ggml.merges", ())
    return held + TOKEN * vocabulary + MERGE * len(merges if isinstance(merges, StringArray) else ())


def _batch(file: GGUFFile, cells: int, exact: bool) -> int:
    """What one batch touches: the larger of attention and MLP, beside the mask and the batch as it was quantized.

    An MLP holds gate, up and their product, attention queries and their answers; without flash attention the scores of
    all heads are written out. Both hold the layer's input, its sum with attention and what is normed.
    """
    width, heads, head = integer(file, "embedding_length"), integer(file, "attention.head_count"), head_dim(file)
    hidden = _hidden(file, width)
    attention = 2 * heads * head + (heads * cells if exact else 0)
    mask = cells * (_FLOAT if exact else 2)
    return BATCH * (_FLOAT * (3 * width + max(3 * hidden, attention)) + mask + 2 * hidden)


def _hidden(file: GGUFFile, width: int) -> int:
    """Width of the MLP; with experts, of those that a token passes through, with what each of them says."""
    if used := integer(file, "expert_used_count", 0):
        return used * (integer(file, "expert_feed_forward_length", integer(file, "feed_forward_length", 0)) + width)
    return integer(file, "feed_forward_length", 4 * width)
