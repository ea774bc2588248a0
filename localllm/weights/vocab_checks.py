"""What a vocabulary in a GGUF must have so that llama.cpp can load it and turn any text into tokens without aborting.

An exception while llama.cpp tokenizes ends the process. Sources: src/llama-vocab.cpp (impl::load, the tokenizers and
byte_to_token) and what scripts/fuzz_gguf.py found.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from localllm.errors import InvalidModelError
from localllm.weights.strings import StringArray

if TYPE_CHECKING:
    from localllm.weights.gguf import Value

MAX_TOKENS, MAX_BYTES = 400_000, 8 << 20
"""Half as many again as the largest vocabularies known (262,144 tokens, 4 MB); these cost less than 64 MiB."""
_PREFIX = "tokenizer.ggml."
_ARRAYS = {"tokens": (8,), "merges": (8,), "scores": (5, 6), "token_type": (5,), "precompiled_charsmap": (0, 1)}
"""Element types (enum gguf_type) that llama.cpp takes."""
_BYTE = 6  # LLAMA_TOKEN_TYPE_BYTE
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_UTF8 = [byte for byte in range(256) if byte not in (0xC0, 0xC1) and byte < 0xF5]
"""Bytes that occur in text; llama.cpp is never given others."""
_NONE = 0xFFFFFFFF
_DEFAULTS = {"llama": (1, 2), "gpt2": (11, 11), "hybriddna": (11, 11), "whitespace": (11, 11), "plamo2": (1, 2)}
"""Begin and end of text where the file names none; other tokenizers then have none."""
_ADDS_BOS = {*_DEFAULTS, "gemma4"}
"""Tokenizers that may add a beginning unasked; gpt2 does so after some pre-tokenizers."""

Fail = Callable[[str], InvalidModelError]
Kinds = Mapping[str, tuple[int, int | None]]


def check_vocabulary(metadata: Mapping[str, Value], kinds: Kinds, fail: Fail) -> None:
    """Raises what `fail` makes of the first problem; a file without any vocabulary passes."""
    for name, elements in _ARRAYS.items():
        if _PREFIX + name in kinds and kinds[_PREFIX + name] not in [(9, element) for element in elements]:
            raise fail(f"is damaged: {_PREFIX}{name} is not an array of the right type")
    model = metadata.get(f"{_PREFIX}model", "")
    if not isinstance(model, str) or model in ("none", "no_vocab", "test") or "\0" in model:
        raise fail(f"has no usable vocabulary: {_PREFIX}model is {str(model)[:40]!r}")
    if f"{_PREFIX}tokens" not in metadata:
        return
    tokens = _raw_tokens(metadata, fail)
    kinds_of_tokens = _parallel(metadata, "token_type", len(tokens), fail)
    _parallel(metadata, "scores", len(tokens), fail)
    if model != "rwkv":
        _check_byte_tokens(tokens, kinds_of_tokens, fail)
    if model == "llama":
        _check_all_bytes(tokens, fail)
    if model == "rwkv":
        _check_first_bytes(tokens, fail)
    _check_ends(metadata, model, len(tokens), fail)


def _raw_tokens(metadata: Mapping[str, Value], fail: Fail) -> list[bytes]:
    """The tokens as llama.cpp sees them: up to their first zero byte, empty ones renamed, all different."""
    key = f"{_PREFIX}tokens"
    strings = metadata[key]
    assert isinstance(strings, StringArray)
    if not 0 < len(strings) <= MAX_TOKENS or strings.nbytes > MAX_BYTES:
        raise fail(f"has a vocabulary of {len(strings)} tokens, and it can be 1 to {MAX_TOKENS} in {MAX_BYTES} bytes")
    tokens = strings.raw()
    if b"\0" in b"".join(tokens):
        tokens = [token.split(b"\0", 1)[0] for token in tokens]
    if b"" in tokens:
        tokens = [token or b"[EMPTY_%d]" % i for i, token in enumerate(tokens)]
    if len(set(tokens)) != len(tokens):
        seen: set[bytes] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise fail(f"is damaged: {key} has {twice[:40].decode('utf-8', 'replace')!r} twice")
    return tokens


def _parallel(metadata: Mapping[str, Value], name: str, n_tokens: int, fail: Fail) -> Sequence[float]:
    """The array that says something of each token, or an empty one."""
    values = metadata.get(_PREFIX + name)
    if not isinstance(values, array):
        return ()
    if len(values) < n_tokens:
        raise fail(f"is damaged: {_PREFIX}{name} has {len(values)} entries for {n_tokens} tokens")
    return values


def _check_byte_tokens(tokens: Sequence[bytes], kinds: Sequence[float], fail: Fail) -> None:
    """A token that stands for a byte is read as two digits from its fourth letter on."""
    if _BYTE not in kinds:
        return
    for token, kind in zip(tokens, kinds, strict=False):
        if kind == _BYTE and not _BYTE_TOKEN.fullmatch(token):
            raise fail(f"is damaged: {_PREFIX}tokens has the byte token {token[:40].decode('utf-8', 'replace')!r}")


def _check_all_bytes(tokens: Sequence[bytes], fail: Fail) -> None:
    """Letters that the vocabulary lacks are written as bytes, each of which has to be found."""
    known = set(tokens)
    for byte in _UTF8:
        if b"<0x%02X>" % byte not in known and (not byte or bytes([byte]) not in known):
            raise fail(f"cannot be used: its vocabulary has no token for the byte 0x{byte:02X}")


def _check_first_bytes(tokens: Sequence[bytes], fail: Fail) -> None:
    """The tokenizer of RWKV never ends at a byte that begins a token and is none itself."""
    plain = [_unescaped(token) for token in tokens]
    alone = {token for token in plain if len(token) == 1}
    for token in plain:
        if token[:1] not in alone:
            raise fail(f"cannot be used: its vocabulary has no token for the byte {token[:1]!r}")


def _unescaped(token: bytes) -> bytes:
    """As llama_unescape_rwkv_token reads it, as far as two bytes matter."""
    if b"\\" not in token:
        return token
    letters = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code[1:], 16)]) if len(code) == 3 else letters.get(code, code)

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", plain, token, flags=re.DOTALL)


def _check_ends(metadata: Mapping[str, Value], model: str, n_tokens: int, fail: Fail) -> None:
    """The tokens that begin and end text lie in the vocabulary, and exist where they are to be added."""
    found = dict(zip(("bos", "eos"), _DEFAULTS.get(model, (_NONE, _NONE)), strict=True))
    for name in found:
        value = metadata.get(f"{_PREFIX}{name}_token_id")
        if isinstance(value, int) and value not in (_NONE, -1):
            if not 0 <= value < n_tokens:
                raise fail(f"is damaged: {_PREFIX}{name}_token_id is {value} in a vocabulary of {n_tokens} tokens")
            found[name] = value
        wanted = metadata.get(f"{_PREFIX}add_{name}_token", name == "bos" and model in _ADDS_BOS)
        if name == "bos" and model == "gemma4":
            wanted = True  # whatever the file says
        if wanted is True and found[name] >= n_tokens:
            raise fail(f"is damaged: it adds a token that {_PREFIX}{name}_token_id does not name")
