"""Children of the worker in which one thing is other than it should be; the argument says which."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from typing import Any

from localllm.engine import llama, vocab, worker_child
from localllm.weights import checks


def unchecked() -> None:
    """Vocabularies reach llama.cpp as they are."""
    checks.check_vocabulary = lambda *_: None  # type: ignore[assignment]


def careless() -> None:
    """Token ids reach llama.cpp as they are."""
    piece = vocab.Vocab.piece

    def unchecked(self: vocab.Vocab, token: int, *, special: bool = False) -> Any:
        if token < self.size:
            return piece(self, token, special=special)
        return self._llama.llama_token_to_piece(self.pointer, token, ctypes.create_string_buffer(64), 64, 0, special)

    vocab.Vocab.piece = unchecked  # type: ignore[method-assign]


def noisy() -> None:
    """Before each message comes what a damaged process might write, and native code prints too."""
    write = worker_child.Child._write

    def noise(self: worker_child.Child, message: Any) -> None:
        os.write(self._out, b'ggml: \xff\x00 hello\n{"class":"Answer","number":"1"}\n[1,2\n\n')
        os.write(1, b"printf without an end of line")
        write(self, message)

    worker_child.Child._write = noise  # type: ignore[method-assign]


def flooding() -> None:
    """The answer to the second call has no end."""
    write = worker_child.Child._write

    def flood(self: worker_child.Child, message: Any) -> None:
        while getattr(message, "number", 0) == 2:
            os.write(self._out, b"x" * 65536)
        write(self, message)

    worker_child.Child._write = flood  # type: ignore[method-assign]


def dying() -> None:
    """Loading a model kills it."""

    def die(*_: Any, **__: Any) -> Any:
        os.write(2, b"ggml.c:99: GGML_ASSERT(\x1b[31mtrue) failed\n")
        os.abort()

    llama.LlamaEngine.open = die  # type: ignore[method-assign]


def dying_of_a_text() -> None:
    """Turning the text "deadly" into tokens kills it."""
    tokenize = vocab.Vocab.tokenize

    def die(self: vocab.Vocab, text: str, **options: Any) -> list[int]:
        if text == "deadly":
            os.write(2, b"ggml.c:99: GGML_ASSERT(true) failed\n")
            os.abort()
        return tokenize(self, text, **options)

    vocab.Vocab.tokenize = die  # type: ignore[method-assign]


def slow() -> None:
    """A step takes so long that a test cannot come too late to disturb it."""
    step = llama.LlamaEngine.step

    def wait(self: llama.LlamaEngine) -> Any:
        time.sleep(0.02)
        return step(self)

    llama.LlamaEngine.step = wait  # type: ignore[method-assign]


def stuck() -> None:
    """A step ends only after the text "go on" has been turned into tokens."""
    step, tokenize, asked = llama.LlamaEngine.step, vocab.Vocab.tokenize, threading.Event()

    def wait(self: llama.LlamaEngine) -> Any:
        assert asked.wait(60)
        return step(self)

    def listen(self: vocab.Vocab, text: str, **options: Any) -> list[int]:
        if text == "go on":
            asked.set()
        return tokenize(self, text, **options)

    llama.LlamaEngine.step = wait  # type: ignore[method-assign]
    vocab.Vocab.tokenize = listen  # type: ignore[method-assign]


if __name__ == "__main__":
    changes = (unchecked, careless, noisy, flooding, dying, dying_of_a_text, slow, stuck)
    {change.__name__: change for change in changes}[sys.argv[1]]()
    worker_child.main()
