"""What one layer holds for its backward pass, in float32 numbers for each token.

MLX keeps the inputs that an operation's derivative needs, and nothing else. In mlx-lm's classes, for a layer of width D
with H heads, K key and value heads of width d, an MLP of width F, and rows of L tokens, those are

    2 D                the layer's input and the sum after attention: each is the input of a norm
    (H + 2 K) d        queries (scaled), keys and values, inputs of the products of attention
    H L                the scores after softmax: MLX on a CPU writes attention out (mx.fast's fallback)
    3 F                gate, its sigmoid and up; GELU (Gemma) has three steps more

and more where the class has it: the inputs of norms of q and k, of norms after attention and MLP, the copies out of a
fused projection, the tanh of a cap on scores. The gradient of LoRA's A needs the input of its matrix, that of B the
input times A. A frozen matrix needs nothing. Each count was checked by the growth of MLX's peak with layers, widths and
length.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from localllm.weights.architectures.base import head_dim, integer, number
from localllm.weights.gguf import GGUFFile

_READS = {
    "q_proj": "normed", "k_proj": "normed", "v_proj": "normed", "qkv_proj": "normed", "o_proj": "attended",
    "gate_proj": "normed after", "up_proj": "normed after", "gate_up_proj": "normed after", "down_proj": "activated",
    "gate": "normed after",
}  # fmt: skip
"""What each matrix of a layer has as its input."""


@dataclass(frozen=True)
class Layer:
    """Widths of one layer, and what its class keeps beside what all classes do."""

    width: int
    heads: int
    heads_kv: int
    head: int
    """Width of a head."""
    hidden: int
    """Width of the MLP: with experts, of those that a token passes through, together."""
    extra: int
    """Further numbers for each token."""
    score_copies: int = 1

    def inputs(self) -> Mapping[str, int]:
        """Widths of what matrices read."""
        attended = self.heads * self.head
        return {
            "normed": self.width, "attended": attended, "normed after": self.width, "activated": self.hidden,
        }  # fmt: skip

    def kept(self, length: int, targets: Collection[str], rank: int, dropout: bool) -> int:
        """Numbers for each token of rows of `length` tokens, with LoRA on `targets` ("self_attn.q_proj")."""
        attention = (self.heads + 2 * self.heads_kv) * self.head + self.score_copies * self.heads * length
        return 2 * self.width + attention + 3 * self.hidden + self.extra + self._for_lora(targets, rank, dropout)

    def _for_lora(self, targets: Collection[str], rank: int, dropout: bool) -> int:
        read = [_READS.get(path.rpartition(".")[2], "normed") for path in targets]
        widths = self.inputs()
        if dropout:  # each matrix has a mask and an input of its own
            return sum(2 * widths[name] + rank for name in read)
        return sum(widths[name] for name in set(read)) + rank * len(read)


def layer_of(file: GGUFFile) -> Layer:
    """From the metadata and the names of the tensors. Raises InvalidModelError where a number is missing."""
    width, heads = integer(file, "embedding_length"), integer(file, "attention.head_count")
    kv, head = integer(file, "attention.head_count_kv", heads), head_dim(file)
    hidden, extra = integer(file, "feed_forward_length"), 0
    if used := integer(file, "expert_used_count", 0):
        hidden = used * integer(file, "expert_feed_forward_length", hidden)
        extra += used * width  # what each expert says, before the weighted sum
    names = {name.removeprefix("blk.0.") for name in file.tensors if name.startswith("blk.0.")}
    if "attn_q_norm.weight" in names:
        extra += (heads + kv) * head
    if "attn_qkv.weight" in names:
        extra += (heads + 2 * kv) * head
    if {"attn_norm.weight", "post_attention_norm.weight"} <= names:
        extra += 2 * width
    if file.architecture.startswith("gemma"):
        extra += 3 * hidden
    capped = file.architecture == "gemma2" and number(file, "attn_logit_softcapping", 50.0) > 0
    return Layer(width, heads, kv, head, hidden, extra, 2 if capped else 1)
