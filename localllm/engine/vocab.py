"""Text to tokens and back through the vocabulary in the model file."""

from __future__ import annotations

import codecs
import ctypes
from collections.abc import Sequence
from typing import Any

from localllm.engine.native import library
from localllm.errors import EngineError, UsageError

_PIECE = 64  # bytes; hardly a token is longer


class Vocab:
    """llama.cpp's own tokenizer; training uses it too, so that it sees the very ids that inference will.

    Several threads may use it.
    """

    def __init__(self, model: Any) -> None:
        self._llama = library()
        self.pointer = self._llama.llama_model_get_vocab(model)
        self.size: int = self._llama.llama_vocab_n_tokens(self.pointer)
        self.bos: int = self._llama.llama_vocab_bos(self.pointer)
        self.eos: int = self._llama.llama_vocab_eos(self.pointer)
        self._add_bos = bool(self._llama.llama_vocab_get_add_bos(self.pointer))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; see `Engine.tokenize`."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            n = self._llama.llama_tokenize(self.pointer, data, len(data), tokens, room, add_special, parse_special)
            if n >= 0:
                return list(tokens[:n])
            if -n <= room:
                raise EngineError("llama.cpp could not turn the text into tokens.", "Its vocabulary is damaged.")
            room = -n

    def tokenize_chat(self, rendered: str) -> list[int]:
        """Token ids of a rendered conversation; BOS is added where the model wants one and the template wrote none."""
        tokens = self.tokenize(rendered, add_special=False)
        if self._add_bos and self.bos >= 0 and tokens[:1] != [self.bos]:
            return [self.bos, *tokens]
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token, which may be a part of a character; control tokens are empty unless `special`.

        Raises UsageError for an id that the vocabulary does not have: llama.cpp would end the process.
        """
        if not 0 <= token < self.size:
            message = f"{token} is no token of this model, which has {self.size}."
            raise UsageError(message, f"Token ids go from 0 to {self.size - 1}.")
        buffer = ctypes.create_string_buffer(_PIECE)
        n = self._llama.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = self._llama.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        return buffer.raw[:n]

    def text_of(self, token: int) -> str:
        """A control token as it is written in chat templates; empty when there is no such token."""
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, bytes that are not UTF-8 replaced."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(b"".join(self.piece(t) for t in tokens), True)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (end of text, end of turn)."""
        return bool(self._llama.llama_vocab_is_eog(self.pointer, token))
