#!/usr/bin/env python3
"""Give GGUF files to llama.cpp, one path per line of standard input, in a process that may die of one.

For each it answers "ok", "refused: why" (a LocalLLMError) or "error: what" (anything else Python can catch). A model is
opened with a small context, tokenizes text and writes four tokens; an adapter is attached to the base named on the
command line. Started by fuzz.native, which knows what was sent last when no answer comes.
"""

import contextlib
import os
import resource
import sys
from pathlib import Path

os.environ["GGML_NO_BACKTRACE"] = "1"  # else an abort waits for a debugger

from localllm.engine.base import Request
from localllm.engine.llama import LlamaEngine
from localllm.engine.native import library
from localllm.errors import LocalLLMError
from localllm.types import Sampling
from localllm.weights import gguf
from localllm.weights.gguf import read_header

MEMORY = 3 << 30
TEXT = "Hello the wörld <s><|im_end|> \x01\t\n\n 漢字 😀 123 <0x41>"


def use(path: Path, base: Path) -> None:
    """Do with a file what chat does with it. Raises LocalLLMError."""
    header = read_header(path)
    adapter = header.kind == "adapter"
    trained = read_header(base).metadata["llama.context_length"] if adapter else _context_length(header.metadata)
    engine = LlamaEngine.open(base if adapter else path, n_ctx=min(64, int(trained)), n_threads=1)
    try:
        if adapter:
            engine.set_adapters([(path, 1.0)])
        tokens = engine.tokenize(TEXT)[:40]
        engine.detokenize(range(engine.vocab.size))
        if tokens:
            engine.submit(Request(prompt=tokens, sampling=Sampling(max_tokens=4, seed=1)))
            for _ in range(6):
                engine.step()
    finally:
        engine.close()


def _context_length(metadata: dict) -> int:
    architecture = metadata.get("general.architecture", "")
    value = metadata.get(f"{architecture}.context_length", 64)
    return value if isinstance(value, int) and value > 0 else 64


def answer(path: Path, base: Path) -> str:
    """One line of what came of it."""
    try:
        use(path, base)
    except LocalLLMError as error:
        return f"refused: {error.message}"
    except Exception as error:
        return f"error: {error!r}"
    return "ok"


def main() -> None:
    """Answer until the input ends."""
    base = Path(sys.argv[1])
    library()
    if os.environ.get("LOCALLLM_FUZZ_UNCHECKED"):  # for the test that a death is noticed
        gguf.check = lambda *_: None  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS does not know this bound
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        print(" ".join(answer(Path(line.rstrip("\n")), base).split()), flush=True)


if __name__ == "__main__":
    main()
