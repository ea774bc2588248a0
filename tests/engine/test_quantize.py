"""llama.cpp's blocks: against the gguf package, against what they were made of, and what is refused."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from localllm.engine.quantize import BLIND, quantize_chunk
from localllm.errors import (
    DataError,
    UnsupportedModelError,
)
from localllm.weights.quant import dequantize


def random(rows: int = 24, columns: int = 512) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, columns), dtype=np.float32)


def back(blocks: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    raw = np.frombuffer(blocks, np.uint8).reshape(-1, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1])
    return dequantize(raw, kind, shape)


def error(kind: str, values: np.ndarray, importance: np.ndarray | None = None) -> float:
    """Root of the mean squared error, in units of the values' own."""
    made = back(quantize_chunk(values, kind, importance), kind, values.shape)
    return float(np.sqrt(np.mean((made - values) ** 2) / np.mean(values**2)))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32", "TQ1_0", "TQ2_0"])
def test_blocks_are_those_of_the_gguf_package(kind: str) -> None:
    values = random()
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    assert quantize_chunk(values, kind) == theirs.tobytes()


@pytest.mark.parametrize(
    "kind, bound",
    [("Q8_0", 0.007), ("Q6_K", 0.02), ("Q5_K", 0.04), ("Q4_K", 0.08), ("Q3_K", 0.17), ("Q2_K", 0.33),
     ("IQ4_NL", 0.09), ("IQ4_XS", 0.09), ("IQ3_S", 0.18)],
)  # fmt: skip
def test_quantized_values_come_back_within_the_types_error(kind: str, bound: float) -> None:
    found = error(kind, random())
    assert bound / 3 < found < bound


@pytest.mark.parametrize("kind", sorted(BLIND))
def test_types_of_few_bits_need_an_importance_matrix(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{kind}.*importance matrix"):
        quantize_chunk(random(), kind)
    if kind in ("IQ3_XXS", "IQ2_XXS"):  # the others first compute large tables
        assert 0.1 < error(kind, random(), np.ones(512, np.float32)) < 0.5


def test_importance_moves_the_error_to_where_it_does_not_matter() -> None:
    values = random(64)
    importance = np.where(np.arange(512) % 2, 100, 0.01).astype(np.float32)
    off = (back(quantize_chunk(values, "Q4_K", importance), "Q4_K", values.shape) - values) ** 2
    plain = (back(quantize_chunk(values, "Q4_K"), "Q4_K", values.shape) - values) ** 2
    assert off[:, 1::2].mean() < 0.9 * plain[:, 1::2].mean()
    assert off[:, 0::2].mean() > plain[:, 0::2].mean()


def test_the_number_of_threads_does_not_matter() -> None:
    values = random(3000, 256)  # several pieces
    assert len({quantize_chunk(values, "Q4_K", n_threads=n) for n in (1, 2, 5)}) == 1


def test_a_view_that_is_not_contiguous_is_what_it_shows() -> None:
    values = random(48, 512)
    assert quantize_chunk(values[::2, :256], "Q8_0") == quantize_chunk(values[::2, :256].copy(), "Q8_0")


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_halves_round_to_nearest_even(kind: str) -> None:
    step = 2.0**-10 if kind == "F16" else 2.0**-7
    values = np.array([[1 + step / 2, 1 + step * 3 / 2, 1 + step * 0.51, -1 - step / 2]], np.float32)
    assert list(back(quantize_chunk(values, kind), kind, values.shape)[0]) == [1, 1 + 2 * step, 1 + step, -1]


@pytest.mark.parametrize(
    "kind, value",
    [
        ("F16", 65520.0),
        ("Q8_0", 1e9),
        ("F32", np.inf),
        ("BF16", np.nan),
        ("Q4_0", np.nan),
        ("Q4_K", np.nan),
        ("Q4_K", -np.inf),
    ],
)
def test_what_a_type_cannot_hold_is_refused_and_not_clamped(kind: str, value: float) -> None:
    values = random(1, 256)
    values[0, 7] = value
    with pytest.raises(UnsupportedModelError, match=f"finite number that {kind}"):
        quantize_chunk(values, kind)
    if kind == "F16":
        values[0, 7] = 65519
        assert back(quantize_chunk(values, kind), kind, values.shape)[0, 7] == 65504


@pytest.mark.parametrize(
    "kind, shape", [("Q4_K", (4, 128)), ("Q8_0", (4, 40)), ("Q8_K", (4, 256)), ("I32", (4, 256)), ("F16", (256,))]
)
def test_shapes_and_types_that_cannot_be(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedModelError, match=kind):
        quantize_chunk(np.zeros(shape, np.float32), kind)


def test_importance_of_another_length_is_refused() -> None:
    with pytest.raises(DataError):
        quantize_chunk(random(), "Q4_K", np.ones(256, np.float32))
