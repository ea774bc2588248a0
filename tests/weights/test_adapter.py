"""Adapters as values: layers of several ranks and scales, our folder, and the strict reader of safetensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from localllm.errors import AdapterError
from localllm.weights.adapter import (
    CONFIG,
    WEIGHTS,
    Adapter,
    from_scaled,
    from_tensors,
    matrix_shape,
    padded,
    read_folder,
    write_folder,
)
from localllm.weights.safetensors import read_tensors
from tests.weights.bases import delta, pair

Q, DOWN, EXPERTS = (
    "model.layers.3.self_attn.q_proj",
    "model.layers.1.mlp.down_proj",
    "model.layers.0.mlp.switch_mlp.up_proj",
)
EMBEDDING = "model.embed_tokens"
SHAPES: dict[str, tuple[int, ...]] = {Q: (8, 6), DOWN: (6, 10), EXPERTS: (3, 8, 6), EMBEDDING: (20, 6)}
RANKS = {Q: 4, DOWN: 2, EXPERTS: 3, EMBEDDING: 1}


def mixed() -> Adapter:
    """Every kind of layer, each of another rank."""
    layers = {p: pair(s, RANKS[p], i, embedding=p == EMBEDDING) for i, (p, s) in enumerate(SHAPES.items())}
    return Adapter(4, 8.0, layers, 0.25)


def test_the_folder_keeps_every_kind_of_layer(tmp_path: Path) -> None:
    adapter = mixed()
    write_folder(tmp_path, adapter)
    again = read_folder(tmp_path)
    assert (again.rank, again.alpha, again.dropout) == (4, 8.0, 0.25)
    assert set(again.tensors()) == set(adapter.tensors())
    assert all(np.array_equal(again.tensors()[k], v) for k, v in adapter.tensors().items())
    assert {p: matrix_shape(p, *again.layers[p]) for p in SHAPES} == SHAPES
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["lora_parameters"]["scale"] == 2.0
    assert config["num_layers"] == -1, "layers 0, 1 and 3 are not the last three"
    assert config["lora_parameters"]["keys"] == [
        "mlp.down_proj", "mlp.switch_mlp.up_proj", "model.embed_tokens", "self_attn.q_proj",
    ]  # fmt: skip
    with pytest.raises(AdapterError, match=r"adapter_config\.json cannot be read: No such file"):
        read_folder(tmp_path / "nothing")


def scaled(scales: dict[str, float]) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    return {p: (*pair(SHAPES[p], RANKS[p], 0, embedding=p == EMBEDDING), scale) for p, scale in scales.items()}


@pytest.mark.parametrize(
    "scales, alpha, untouched",
    [
        (dict.fromkeys(SHAPES, 2.0), 8.0, set(SHAPES)),  # one scale
        ({p: 6 / r for p, r in RANKS.items()}, 6.0, {Q}),  # one alpha: those of a smaller rank are rescaled
        ({Q: 3.0, DOWN: 6.0, EXPERTS: 1.0, EMBEDDING: 5.0}, 12.0, {Q}),  # 12 / 4, 12 / 2, and others
        ({Q: 0.0, DOWN: 6.0, EXPERTS: 6.0, EMBEDDING: 6.0}, 24.0, {DOWN, EXPERTS, EMBEDDING}),
    ],
)
def test_scales_of_layers_are_folded_into_b(scales: dict[str, float], alpha: float, untouched: set[str]) -> None:
    layers = scaled(scales)
    adapter = from_scaled(layers)
    assert (adapter.rank, adapter.alpha) == (4, alpha)
    assert {path for path in layers if adapter.layers[path][1] is layers[path][1]} == untouched
    for path, (a, b, scale) in layers.items():
        expected = scale * delta(a, b, embedding=path == EMBEDDING)
        found = adapter.scale * delta(*adapter.layers[path], embedding=path == EMBEDDING)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_scale_of_zero_is_no_change() -> None:
    a, b = pair((8, 6), 2, 0)
    adapter = from_scaled({Q: (a, b, 0.0)})
    assert not adapter.layers[Q][1].any()


def test_padding_changes_no_product() -> None:
    adapter = mixed()
    full = padded(adapter)
    for path, (a, b) in full.layers.items():
        assert a.shape[1] == 4
        embedding = path == EMBEDDING
        assert np.array_equal(delta(a, b, embedding=embedding), delta(*adapter.layers[path], embedding=embedding))


@pytest.mark.parametrize(
    "change, problem",
    [
        ({f"{Q}.lora_b": None}, r"q_proj\.lora_a without .*q_proj\.lora_b"),
        ({f"{Q}.lora_a": None}, r"q_proj\.lora_b without .*q_proj\.lora_a"),
        ({f"{Q}.m": np.ones(8, np.float32)}, r"q_proj\.m, which is not a LoRA matrix"),
        ({f"{Q}.lora_b": np.ones((3, 8), np.float32)}, r"q_proj has the shapes \(6, 4\) and \(3, 8\)"),
        ({f"{Q}.lora_a": np.ones((6, 5)), f"{Q}.lora_b": np.ones((5, 8))}, "do not fit rank 4"),
        ({f"{EXPERTS}.lora_b": np.ones((2, 8, 3), np.float32)}, r"up_proj has the shapes \(3, 3, 6\) and \(2, 8, 3\)"),
    ],
)
def test_tensors_that_do_not_belong_are_named(change: dict[str, np.ndarray | None], problem: str) -> None:
    tensors = {k: v for k, v in {**mixed().tensors(), **change}.items() if v is not None}
    with pytest.raises(AdapterError, match=problem):
        from_tensors(tensors, 4, 8.0)


def test_values_that_are_not_finite_and_nothing_at_all_are_refused() -> None:
    a, b = pair((8, 6), 2, 0)
    b[0, 3] = np.nan
    with pytest.raises(AdapterError, match="q_proj has values that are not finite"):
        from_scaled({Q: (a, b, 1.0)})
    with pytest.raises(AdapterError, match="holds no layers"):
        from_scaled({})
    with pytest.raises(AdapterError, match="holds no layers"):
        from_tensors({}, 4, 8.0)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "[" * 10_000, '{"lora_parameters": 1}', '{"lora_parameters": {"rank": 4}}',
        '{"lora_parameters": {"rank": 4, "scale": "1"}}',
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_one_clear_sentence(tmp_path: Path, text: str) -> None:
    write_folder(tmp_path, mixed())
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(
        AdapterError, match=r"is not JSON|is not a JSON object|does not say the rank|has (1|None) as its scale"
    ):
        read_folder(tmp_path)
    huge = {"rank": 4, "scale": 1.0, "dropout": 10**400}
    (tmp_path / CONFIG).write_text(json.dumps({"lora_parameters": huge}))
    with pytest.raises(AdapterError, match="as its dropout, which is not a finite number"):
        read_folder(tmp_path)


def safetensors(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_all_float_types_and_null_metadata_are_read(tmp_path: Path) -> None:
    numbers = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
    bfloat = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    data = numbers.tobytes() + numbers.astype("<f2").tobytes() + bfloat
    header = {
        "__metadata__": None,
        "a": entry("F32", [2, 2], 0, 16),
        "b": entry("F16", [2, 2], 16, 24),
        "c": entry("BF16", [2, 2], 24, 32),
    }
    found = read_tensors(safetensors(tmp_path / "x", header, data))
    assert all(np.array_equal(found[name], numbers) and found[name].dtype == np.float32 for name in "abc")


@pytest.mark.parametrize(
    "header, data, problem",
    [
        ({"a": entry("F32", [2], 0, 12)}, b"\0" * 12, r"'a' of shape \(2,\) has 12 bytes"),
        ({"a": entry("F32", [2], 0, 8)}, b"\0" * 4, "take 8 bytes, the file has 4"),
        ({"a": entry("F32", [2], 0, 8)}, b"\0" * 12, "take 8 bytes, the file has 12"),
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, b"\0" * 12, "lies at 4 instead of 8"),
        ({"a": entry("F32", [2], 4, 12)}, b"\0" * 12, "lies at 4 instead of 0"),
        ({"a": entry("F32", [-2], 0, -8)}, b"", "not whole numbers"),
        ({"a": entry("F32", [True], 0, 4)}, b"\0" * 4, "not whole numbers"),
        ({"a": {"dtype": "F32"}}, b"", "lacks its dtype, shape or offsets"),
        ({"a": 3}, b"", "lacks its dtype, shape or offsets"),
        ({"a": entry("I64", [1], 0, 8)}, b"\0" * 8, "a has the dtype I64"),
        ({"a": entry(["F32"], [1], 0, 4)}, b"\0" * 4, "dtype"),  # type: ignore[arg-type]
        (b'{"a": 1, "a": 1}', b"", "a name occurs twice"),
        (b"[]", b"", "not a JSON object"),
        (b"{", b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
    ],
)
def test_damaged_safetensors_are_one_clear_sentence(tmp_path: Path, header: object, data: bytes, problem: str) -> None:
    with pytest.raises(AdapterError, match=problem):
        read_tensors(safetensors(tmp_path / "x.safetensors", header, data))


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="claims 99 bytes"):
        read_tensors(safetensors(tmp_path / "x", {}, b"", length=99))
    with pytest.raises(AdapterError, match="claims 18446744073709551615 bytes"):
        read_tensors(safetensors(tmp_path / "x", {}, b"", length=2**64 - 1))
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(AdapterError, match="not a sound safetensors file"):
        read_tensors(tmp_path / "x")
    with pytest.raises(AdapterError, match="cannot be read"):
        read_tensors(tmp_path / WEIGHTS)
