"""What answering takes, held against the sizes that llama.cpp itself says in its log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.errors import InvalidModelError
from localllm.weights.gguf import read_header
from localllm.weights.inference import BATCH, CANDIDATE, ChatFootprint, chatting
from localllm.weights.repacking import types_of
from scripts.fit_inference import Shape, write

ROOT = Path(__file__).resolve().parents[2]
TINY = Shape("", "llama", "gpt2", 3, 256, 512, 8, 2, 32, 512, 10, "Q4_0", "Q8_0")
SHAPES = {
    "q4_0": TINY,
    "tied": replace(TINY, embedding="Q4_0"),
    "q4_k": replace(TINY, type="Q4_K", wider="Q6_K"),
    "q8_0": replace(TINY, type="Q8_0", architecture="qwen3"),
    "f16": replace(TINY, type="F16", embedding="F16", architecture="qwen2", heads_kv=8),
    "windows": replace(TINY, architecture="gemma3", tokenizer="llama", head=64),
    "wide": replace(TINY, layers=1, hidden=8192),
}
CASES = [
    (name, n_ctx, slots, exact)
    for name in SHAPES
    for n_ctx, slots, exact in ((1000, 1, False), (1000, 3, False), (8192, 1, True))
]
LOGGED = re.compile(r"CPU(?P<what>_\w+| KV| compute)? (?:model )?buffer size = +(?P<mib>[\d.]+) MiB")
CHILD = """
import ctypes, json, sys
from pathlib import Path
import llama_cpp
from localllm.engine import native
from localllm.engine.llama import LlamaEngine
lib = native.library()
said = []
callback = llama_cpp.llama_log_callback(lambda level, text, _: said.append(text.decode("utf-8", "replace")))
lib.llama_log_set(callback, ctypes.c_void_p(0))
found = []
for path, n_ctx, slots, exact in json.load(sys.stdin):
    said.clear()
    LlamaEngine.open(Path(path), n_ctx=n_ctx, n_threads=1, n_slots=slots, exact=exact).close()
    found.append([line for line in said if "buffer size" in line])
print(json.dumps(found))
"""
Logs = dict[tuple[str, int, int, bool], tuple[ChatFootprint, dict[str, float]]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """Our estimate of each case, and llama.cpp's buffers in MiB by name."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, shape in SHAPES.items():
        write(shape, folder / f"{name}.gguf")
    asked = [(str(folder / f"{name}.gguf"), *rest) for name, *rest in CASES]
    command = [sys.executable, "-c", CHILD]
    said = subprocess.run(command, cwd=ROOT, input=json.dumps(asked), check=True, capture_output=True, text=True)
    found: Logs = {}
    for case, lines in zip(CASES, json.loads(said.stdout), strict=True):
        name, n_ctx, slots, exact = case
        sizes: dict[str, float] = {}
        for match in filter(None, map(LOGGED.search, lines)):
            what = (match["what"] or "").strip(" _")
            sizes[what] = sizes.get(what, 0.0) + float(match["mib"])
        found[case] = chatting(read_header(folder / f"{name}.gguf"), n_ctx, slots, exact=exact), sizes
    return found


def mib(size: int) -> float:
    return size / (1 << 20)


@pytest.mark.parametrize("case", CASES)
def test_cache_and_copies_are_those_of_llama_cpp(logs: Logs, case: tuple[str, int, int, bool]) -> None:
    estimate, logged = logs[case]
    assert mib(estimate.cache) == pytest.approx(logged["KV"], abs=0.02)
    assert mib(estimate.copies) == pytest.approx(logged.get("REPACK", 0.0), abs=0.02)
    stays = mib(estimate.weights - estimate.copies)
    assert stays - 0.3 <= logged["Mapped"] <= mib(estimate.weights) + 0.3  # from the first to the last that stays


@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "wide" or case[3]])
def test_a_batch_takes_what_llama_cpp_reserves_where_logits_take_less(
    logs: Logs, case: tuple[str, int, int, bool]
) -> None:
    estimate, logged = logs[case]
    quantized = 2 * BATCH * SHAPES[case[0]].hidden  # which llama.cpp allocates when it computes
    ours = mib(estimate.buffers - quantized - CANDIDATE * 512 * case[2])
    assert ours == pytest.approx(logged["compute"], rel=0.12)


def test_x86_and_arm_copy_what_their_instructions_are_for() -> None:
    assert types_of("linux", "x86_64", "flags : sse4_2 avx") == frozenset()
    assert types_of("linux", "x86_64", "flags : avx avx2") == {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
    assert "Q2_K" in types_of("linux", "x86_64", "flags : avx2 avx512f")
    assert "Q8_0" in types_of("linux", "aarch64", "Features : asimd asimddp")
    assert types_of("linux", "aarch64", "Features : asimd") == frozenset()
    assert types_of("darwin", "arm64", "") == frozenset()


def test_what_the_system_can_take_back_is_not_needed(tmp_path: Path) -> None:
    write(TINY, tmp_path / "m.gguf")
    found = chatting(read_header(tmp_path / "m.gguf"), 256, repacked=frozenset({"Q4_0"}))
    plain = chatting(read_header(tmp_path / "m.gguf"), 256, repacked=frozenset())
    assert 0 < found.copies < found.weights
    assert (found.needed, plain.needed) == (plain.total, plain.total)


def test_a_file_without_embeddings_is_refused(tmp_path: Path) -> None:
    write(TINY, tmp_path / "m.gguf")
    file = read_header(tmp_path / "m.gguf")
    tensors = {name: info for name, info in file.tensors.items() if name != "token_embd.weight"}
    with pytest.raises(InvalidModelError, match="no token embeddings"):
        chatting(replace(file, tensors=tensors), 256)
