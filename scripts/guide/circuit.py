"""Starting weights that already copy: an induction circuit written into the first two layers.

The embedding of a token is a constant coordinate and an identity code. Heads 0 to 2 of layer 0 attend exactly 1, 2
and 3 positions back (constant queries and keys on the fast rotary pairs, the query turned by the distance) and write
the code found there into the space of that distance; head 3 attends to about the last dozen tokens at once, and so
writes a blurred trace of them. Every head of layer 1 compares, on the slow rotary pairs, the current token, the two
before it and the trace with what is stored at each earlier position: it finds the token *after* the earlier
occurrence of the same context and writes its code where the tied output reads it. The trace decides between places
that share three tokens. All other writes start at zero, so nothing disturbs the circuit; it is ordinary weights and
stays trainable.
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .model import Guide
from .settings import SPECIALS, Shape

CONSTANT, CODE, STORED = 0, 64, 36
"""The constant's coordinate, and the sizes of an identity code and of a stored one."""
FREE = 1 + CODE + 4 * STORED
"""The first coordinate of the residual stream that the circuit does not use."""
CONSTANT_VALUE = 1.0
FAST_PAIRS, SLOW_PAIRS = 10, 18
POSITION_SCORE = 18.0
BROAD_PAIRS, BROAD_CENTRE, BROAD_SCORE, BROAD_GAIN = slice(3, 13), 6.0, 1.7, 2.4
"""The blurred look back: its rotary pairs, the distance it is centred on, its sharpness, and a gain to unit length."""
MATCH_SCORE = 30.0
MATCH_WEIGHTS = (1.0, 0.85, 0.7, 1.4)
"""Agreement of the nearest token counts most, so that the longest matching suffix wins; the last is the blur's."""
STORE_GAIN, COPY_GAIN = 1.0, 3.0
FEATURE_VALUE = 0.15
SAY_GAIN = 0.3
SHARED = 0.7
"""How much of a code is shared by a word's tokens with and without the space before it."""


def stored(distance: int) -> slice:
    """Where the residual stream keeps the code of the token `distance` back; 4 is the blur."""
    start = 1 + CODE + (distance - 1) * STORED
    return slice(start, start + STORED)


def identity_codes(tokenizer: Tokenizer, shape: Shape, generator: torch.Generator) -> Tensor:
    """Unit codes (vocab, CODE); ` word` and `word` share a part so that one can be copied as the other."""
    strings = [tokenizer.id_to_token(i) or "" for i in range(shape.vocab)]
    bare = {s: i for i, s in enumerate(strings)}
    base = torch.randn(shape.vocab, CODE, generator=generator)
    own = torch.randn(shape.vocab, CODE, generator=generator)
    twin = torch.tensor([bare.get(s[1:], i) if s.startswith("Ġ") and len(s) > 1 else i for i, s in enumerate(strings)])
    codes = SHARED * base[twin] + (1 - SHARED**2) ** 0.5 * own
    return codes / codes.norm(dim=1, keepdim=True)


def features(tokenizer: Tokenizer, shape: Shape) -> Tensor:
    """What a token looks like, (vocab, properties): known from the start, they need not be learned token by token."""
    rows = []
    for i in range(shape.vocab):
        text = tokenizer.decode([i], skip_special_tokens=False)
        word = text.strip()
        rows.append(
            [
                i < len(SPECIALS), text[:1] == " ", text[:1].isalpha(), len(word) == 1, len(word) > 4,
                word[:1].isupper(), word.isupper(), word.islower(), word.isdigit(), "\n" in text, word[:1] in ".!?",
                word[:1] in ",;:", '"' in word, word[:1] in "()[]{}", word[:1] in "#-/@$",
            ]
        )  # fmt: skip
    return torch.tensor(rows).float()


def _orthogonal(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """Random (rows, cols) with orthonormal rows or columns, whichever are fewer."""
    q = torch.linalg.qr(torch.randn(max(rows, cols), min(rows, cols), generator=generator))[0]
    return q if rows >= cols else q.T


def _look_back(model: Guide, projection: Tensor) -> None:
    """Layer 0: heads 0, 1, 2 attend 1, 2, 3 positions back, head 3 to many, and store the codes they find."""
    shape, attention = model.shape, model.layers[0].attention
    half = shape.head // 2
    scale = (shape.width / (CONSTANT_VALUE**2 + 1)) ** 0.5
    for head in range(4):
        blurred = head == 3
        pairs = torch.arange(half)[BROAD_PAIRS if blurred else slice(FAST_PAIRS)]
        rows = pairs + head * shape.head
        score = BROAD_SCORE if blurred else POSITION_SCORE
        strength = (score * shape.head**0.5) ** 0.5 / (CONSTANT_VALUE * scale)
        turn = -(BROAD_CENTRE if blurred else head + 1) * shape.rope_base ** (-pairs / half)
        for matrix in (attention.q, attention.k, attention.v):
            matrix.weight[head * shape.head : (head + 1) * shape.head] = 0
        attention.q.weight[rows, CONSTANT] = strength * turn.cos()
        attention.q.weight[rows + half, CONSTANT] = strength * turn.sin()
        attention.k.weight[rows, CONSTANT] = strength
        values = slice(head * shape.head, head * shape.head + STORED)
        attention.v.weight[values, 1 : 1 + CODE] = projection
        gain = (BROAD_GAIN if blurred else 1.0) * STORE_GAIN / scale
        attention.o.weight[stored(head + 1), values] = torch.eye(STORED) * gain


def _match(model: Guide, projection: Tensor, generator: torch.Generator) -> None:
    """Layer 1: every head matches the context by its own projections and writes the code of the token that followed."""
    shape, attention = model.shape, model.layers[1].attention
    half, share = shape.head // 2, 2 * SLOW_PAIRS // len(MATCH_WEIGHTS)
    stored_square = STORE_GAIN**2 * STORED / CODE
    scale = (shape.width / (CONSTANT_VALUE**2 + 1 + 4 * stored_square)) ** 0.5
    slow = torch.cat([torch.arange(half - SLOW_PAIRS, half), torch.arange(shape.head - SLOW_PAIRS, shape.head)])
    now = [slice(1, 1 + CODE), stored(1), stored(2), stored(4)]
    then = [stored(1), stored(2), stored(3), stored(4)]
    for head in range(shape.heads):
        part = slice(head * shape.head, (head + 1) * shape.head)
        for matrix in (attention.q, attention.k, attention.v):
            matrix.weight[part] = 0
        mixed = slow[torch.randperm(len(slow), generator=generator)] + head * shape.head
        for i, weight in enumerate(MATCH_WEIGHTS):
            rows = mixed[i * share : (i + 1) * share]
            view = _orthogonal(share, STORED, generator) * (STORED / share) ** 0.5
            gain = (MATCH_SCORE * weight * shape.head**0.5) ** 0.5 / scale
            attention.q.weight[rows, now[i]] = gain * (view @ projection if i == 0 else view / STORE_GAIN)
            attention.k.weight[rows, then[i]] = gain * view / STORE_GAIN
        values = _orthogonal(shape.head, CODE, generator)
        attention.v.weight[part, 1 : 1 + CODE] = values
        attention.o.weight[1 : 1 + CODE, part] = values.T * (COPY_GAIN / shape.heads / scale)


def _say_what_is_seen(model: Guide, projection: Tensor, generator: torch.Generator) -> None:
    """Layers 2 to 4: half of the heads say the token before the one that they attend to, as stored there.

    Where to look is left to training, which finds it much sooner when looking at the right place already helps.
    """
    shape = model.shape
    for layer in list(model.layers)[2:5]:
        for head in range(shape.heads // 2):
            part = slice(head * shape.head, (head + 1) * shape.head)
            view = _orthogonal(shape.head, STORED, generator)
            layer.attention.v.weight[part] = 0
            layer.attention.v.weight[part, stored(1)] = view
            layer.attention.o.weight[1 : 1 + CODE, part] = projection.T @ view.T * SAY_GAIN


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
    looks = features(tokenizer, shape)
    embedding[:, FREE : FREE + looks.shape[1]] += FEATURE_VALUE * looks
    embedding[:, 1 : 1 + CODE] = identity_codes(tokenizer, shape, generator)
    projection = _orthogonal(STORED, CODE, generator)
    _look_back(model, projection)
    _match(model, projection, generator)
    _say_what_is_seen(model, projection, generator)


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
