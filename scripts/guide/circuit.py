"""Starting weights that already copy: an induction circuit written into the first two layers.

The embedding of a token is a constant coordinate and an identity code. Three heads of layer 0 attend exactly 1, 2 and
3 positions back (constant queries and keys on the fast rotary pairs, the query turned by the distance) and write the
code found there into the space of that distance. Every head of layer 1 compares, on the slow rotary pairs, the
current token and the two before it with the three stored at each earlier position: it finds the token *after* the
earlier occurrence of the same three and writes its code where the tied output reads it. All other writes start at
zero, so nothing disturbs the circuit; it is ordinary weights and stays trainable.
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .model import Guide
from .settings import Shape

CONSTANT, CODE, STORED = 0, 64, 48
"""The constant's coordinate, and the sizes of an identity code and of a stored one."""
CONSTANT_VALUE = 1.0
FAST_PAIRS, SLOW_PAIRS = 10, 18
POSITION_SCORE = 18.0
MATCH_SCORE = 30.0
MATCH_WEIGHTS = (1.0, 0.85, 0.7)
"""Agreement of the nearest token counts most, so that the longest matching suffix wins."""
STORE_GAIN, COPY_GAIN = 1.0, 3.0
SHARED = 0.7
"""How much of a code is shared by a word's tokens with and without the space before it."""


def stored(distance: int) -> slice:
    """Where the residual stream keeps the code of the token `distance` back."""
    start = 1 + CODE + (distance - 1) * STORED
    return slice(start, start + STORED)


def identity_codes(tokenizer: Tokenizer, shape: Shape, generator: torch.Generator) -> Tensor:
    """Unit codes (vocab, CODE); ` word` and `word` share a part so that one can be copied as the other."""
    strings = [tokenizer.id_to_token(i) for i in range(shape.vocab)]
    bare = {s: i for i, s in enumerate(strings)}
    base = torch.randn(shape.vocab, CODE, generator=generator)
    own = torch.randn(shape.vocab, CODE, generator=generator)
    twin = torch.tensor([bare.get(s[1:], i) if s.startswith("Ġ") and len(s) > 1 else i for i, s in enumerate(strings)])
    codes = SHARED * base[twin] + (1 - SHARED**2) ** 0.5 * own
    return codes / codes.norm(dim=1, keepdim=True)


def _orthogonal(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """Random (rows, cols) with orthonormal rows or columns, whichever are fewer."""
    q = torch.linalg.qr(torch.randn(max(rows, cols), min(rows, cols), generator=generator))[0]
    return q if rows >= cols else q.T


def _look_back(model: Guide, projection: Tensor) -> None:
    """Layer 0: heads 0, 1, 2 attend 1, 2, 3 positions back and store the code they find."""
    shape, attention = model.shape, model.layers[0].attention
    half = shape.head // 2
    scale = (shape.width / (CONSTANT_VALUE**2 + 1)) ** 0.5
    strength = (POSITION_SCORE * shape.head**0.5) ** 0.5 / (CONSTANT_VALUE * scale)
    frequencies = shape.rope_base ** (-torch.arange(FAST_PAIRS) / half)
    for head in range(3):
        rows = torch.arange(FAST_PAIRS) + head * shape.head
        turn = -(head + 1) * frequencies
        for matrix in (attention.q, attention.k, attention.v):
            matrix.weight[head * shape.head : (head + 1) * shape.head] = 0
        attention.q.weight[rows, CONSTANT] = strength * turn.cos()
        attention.q.weight[rows + half, CONSTANT] = strength * turn.sin()
        attention.k.weight[rows, CONSTANT] = strength
        values = slice(head * shape.head, head * shape.head + STORED)
        attention.v.weight[values, 1 : 1 + CODE] = projection
        attention.o.weight[stored(head + 1), values] = torch.eye(STORED) * (STORE_GAIN / scale)


def _match(model: Guide, projection: Tensor, generator: torch.Generator) -> None:
    """Layer 1: every head matches three tokens by its own projections and writes the code of the one that followed."""
    shape, attention = model.shape, model.layers[1].attention
    half, share = shape.head // 2, 2 * SLOW_PAIRS // 3
    stored_square = STORE_GAIN**2 * STORED / CODE
    scale = (shape.width / (CONSTANT_VALUE**2 + 1 + 3 * stored_square)) ** 0.5
    slow = torch.cat([torch.arange(half - SLOW_PAIRS, half), torch.arange(shape.head - SLOW_PAIRS, shape.head)])
    sources = [slice(1, 1 + CODE), stored(1), stored(2)]
    for head in range(shape.heads):
        part = slice(head * shape.head, (head + 1) * shape.head)
        for matrix in (attention.q, attention.k, attention.v):
            matrix.weight[part] = 0
        mixed = slow[torch.randperm(len(slow), generator=generator)] + head * shape.head
        for i, weight in enumerate(MATCH_WEIGHTS):
            rows = mixed[i * share : (i + 1) * share]
            view = _orthogonal(share, STORED, generator) * (STORED / share) ** 0.5
            gain = (MATCH_SCORE * weight * shape.head**0.5) ** 0.5 / scale
            attention.q.weight[rows, sources[i]] = gain * (view @ projection if i == 0 else view / STORE_GAIN)
            attention.k.weight[rows, stored(i + 1)] = gain * view / STORE_GAIN
        values = _orthogonal(shape.head, CODE, generator)
        attention.v.weight[part, 1 : 1 + CODE] = values
        attention.o.weight[1 : 1 + CODE, part] = values.T * (COPY_GAIN / shape.heads / scale)


@torch.no_grad()
def start(model: Guide, tokenizer: Tokenizer, seed: int = 0) -> None:
    """Fill `model` with the starting weights."""
    generator = torch.Generator().manual_seed(seed)
    shape = model.shape
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            silent = name.endswith(("attention.o.weight", "down.weight"))
            parameter.zero_() if silent else parameter.normal_(0, 0.05, generator=generator)
        else:
            parameter.fill_(1)
    embedding = model.embedding.weight
    embedding.normal_(0, 0.01, generator=generator)
    embedding[:, CONSTANT] = CONSTANT_VALUE
    embedding[:, 1 : 1 + CODE] = identity_codes(tokenizer, shape, generator)
    projection = _orthogonal(STORED, CODE, generator)
    _look_back(model, projection)
    _match(model, projection, generator)


@torch.no_grad()
def copied_share(model: Guide, tokenizer: Tokenizer, texts: list[str]) -> float:
    """Share of the tokens of repeated texts predicted right the second time; the first four are not counted."""
    right = total = 0
    for text in texts:
        once = tokenizer.encode(text + "\n").ids
        ids = torch.tensor(once + once)
        guess = model(ids, [len(ids)]).argmax(-1)
        at = torch.arange(len(once) + 3, 2 * len(once) - 1)
        right += int((guess[at] == ids[at + 1]).sum())
        total += len(at)
    return right / total
