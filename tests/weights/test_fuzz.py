"""Files damaged at random and in every place: refused or read, and those that pass do llama.cpp no harm.

`scripts/fuzz_gguf.py` does the same to a million files.
"""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from localllm.errors import InvalidModelError, LocalLLMError
from localllm.weights.gguf import read_header
from localllm.weights.vocab_checks import MAX_TOKENS
from scripts.fuzz import watch
from scripts.fuzz.mutations import Mutator
from scripts.fuzz.native import load_all
from scripts.fuzz.parts import Entry, Parts, Tensor, take_apart
from scripts.fuzz.seeds import write_seeds
from tests.weights.damage import set_key, text, texts, u32

CASES, LOADS = 20_000, 200
SEED = 11


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def mutator(seeds: dict[str, Path]) -> Mutator:
    return Mutator([path.read_bytes() for path in seeds.values()], SEED)


@pytest.fixture(scope="module")
def report(mutator: Mutator, tmp_path_factory: pytest.TempPathFactory) -> watch.Report:
    return watch.read_all(mutator, range(CASES), tmp_path_factory.mktemp("cases"))


def test_nothing_but_refusals_within_a_second_and_64_mib(report: watch.Report) -> None:
    assert report.violations == []
    assert report.cases == CASES
    assert report.slowest < watch.SECONDS
    assert report.memory < watch.MEMORY
    # Both happen often, or the cases prove nothing.
    assert report.refused > CASES // 4
    assert len(report.passed) > CASES // 10


def test_llama_cpp_survives_what_passes(report: watch.Report, mutator: Mutator, seeds: dict[str, Path]) -> None:
    chosen = random.Random(SEED).sample(report.passed, LOADS)
    outcome = load_all(((number, mutator.case(number)) for number in chosen), seeds["llama"])
    assert outcome.failures == []
    assert outcome.loads == LOADS
    assert sum(outcome.refusals.values()) < LOADS * 3 // 4  # the others were loaded and wrote text


def test_llama_cpp_loads_what_was_not_damaged(seeds: dict[str, Path]) -> None:
    outcome = load_all(enumerate(path.read_bytes() for path in seeds.values()), seeds["llama"])
    assert (outcome.failures, sum(outcome.refusals.values())) == ([], 0)


def test_a_death_is_noticed_and_the_next_file_still_loaded(
    seeds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the checks, a model of more layers than llama.cpp has room for ends the child."""
    monkeypatch.setenv("LOCALLLM_FUZZ_UNCHECKED", "1")
    good = seeds["llama"].read_bytes()
    bad = set_key(take_apart(good), "llama.block_count", u32(513)).assembled
    outcome = load_all([(0, good), (1, bad), (2, good)], seeds["llama"])
    assert [number for number, _ in outcome.failures] == [1]
    assert "SIGABRT" in outcome.failures[0][1]
    assert outcome.loads == 3


def test_the_same_seed_gives_the_same_cases(mutator: Mutator, seeds: dict[str, Path]) -> None:
    again = Mutator([path.read_bytes() for path in seeds.values()], SEED)
    other = Mutator([path.read_bytes() for path in seeds.values()], SEED + 1)
    assert [again.case(n) for n in range(200)] == [mutator.case(n) for n in range(200)]
    assert [other.case(n) for n in range(200)] != [mutator.case(n) for n in range(200)]


@pytest.mark.parametrize("name", ["llama", "adapter"])
def test_every_truncation_is_refused(name: str, seeds: dict[str, Path], tmp_path: Path) -> None:
    whole, cut = seeds[name].read_bytes(), tmp_path / "cut.gguf"
    last = max(tensor.offset + tensor.nbytes for tensor in read_header(seeds[name]).tensors.values())
    cut.write_bytes(whole)
    for length in range(last - 1, -1, -1):
        with cut.open("r+b") as file:
            file.truncate(length)
        with pytest.raises(InvalidModelError):
            read_header(cut)


def test_a_header_costs_little_more_than_its_file(tmp_path: Path) -> None:
    """The most expensive vocabulary and text that are let through."""
    entries = {
        "general.architecture": text("llama"),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.tokens": texts(b"%07d" % i for i in range(MAX_TOKENS)),
        "tokenizer.chat_template": text("😀" + "x" * ((1 << 20) - 4)),
    }
    tensor = Tensor(b"t", (1,), 0, bytes(4))
    path = tmp_path / "large.gguf"
    path.write_bytes(Parts(tuple(Entry(k.encode(), *v) for k, v in entries.items()), (tensor,)).assembled)
    tracemalloc.start()
    try:
        header = read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(header.metadata) == len(entries)
    assert peak < path.stat().st_size + watch.MEMORY


def test_garbage_is_refused(tmp_path: Path) -> None:
    rng, path = random.Random(SEED), tmp_path / "garbage.gguf"
    for _ in range(300):
        path.write_bytes(b"GGUF\3\0\0\0" + rng.randbytes(rng.randrange(400)))
        with pytest.raises(LocalLLMError):
            read_header(path)
