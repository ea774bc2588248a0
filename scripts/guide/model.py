"""The model in PyTorch: a Llama with tied embeddings over documents packed end to end.

A batch is flat: ids (N,) hold several documents one after the other, and attention runs inside each of them only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .settings import Shape


def rotary(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions (N,), each (N, 1, head): the two halves of a head are rotated together."""
    pairs = torch.arange(shape.head // 2, dtype=torch.float32)
    angles = positions[:, None].float() * shape.rope_base ** (-pairs / (shape.head // 2))
    angles = torch.cat([angles, angles], -1)[:, None, :]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (N, heads, head)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Attention(nn.Module):
    """Causal attention inside each document."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q, self.k, self.v, self.o = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: list[int]) -> Tensor:
        """x (N, width) -> (N, width)."""
        split = (x.shape[0], self.shape.heads, self.shape.head)
        q = rotate(self.q(x).view(split), cos, sin)
        k = rotate(self.k(x).view(split), cos, sin)
        v = self.v(x).view(split).float()
        parts = zip(*(t.transpose(0, 1).unsqueeze(0).split(lengths, 2) for t in (q, k, v)), strict=True)
        # In float32 also under autocast: the bfloat16 kernel compiles a product for every size of tile and is slower.
        with torch.autocast("cpu", enabled=False):
            mixed = torch.cat([functional.scaled_dot_product_attention(*part, is_causal=True) for part in parts], 2)
        return self.o(mixed[0].transpose(0, 1).reshape(x.shape))


class Layer(nn.Module):
    """One block: attention, then a gated feed-forward, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.attention = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.eps)
        self.gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: list[int]) -> Tensor:
        """x (N, width) -> (N, width)."""
        x = x + self.attention(self.attention_norm(x), cos, sin, lengths)
        y = self.ffn_norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Guide(nn.Module):
    """The whole model; the output layer is the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.eps)

    def forward(self, ids: Tensor, lengths: list[int], wanted: Tensor | None = None) -> Tensor:
        """Logits (N, vocab) of packed documents, or only those of the positions `wanted` (M,)."""
        positions = torch.cat([torch.arange(n) for n in lengths])
        cos, sin = rotary(positions, self.shape)
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, lengths)
        if wanted is not None:
            x = x[wanted]
        return self.norm(x) @ self.embedding.weight.T
