"""`localllm show NAME --tensors`: what each tensor becomes, with its measured error."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.weights import measure as measuring
from localllm.weights.gguf import read_header
from localllm.weights.measure import measure
from localllm.weights.quant import repack8
from tests.cli.helpers import fails, run
from tests.weights.test_quant import in_mlx, random_blocks, reference


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a tensor of each sort: affine, in groups of 16, with a table, and plain."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("Q4_K", "Q6_K", "IQ4_NL"):
        blocks = random_blocks(kind, (8, 512)).reshape(8, -1)
        writer.add_tensor(f"{kind}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("norm.weight", np.ones(16, np.float32))
    writer.add_tensor("half.weight", np.full((2, 32), 3.0, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_built_in_model_is_exact() -> None:
    *rows, total = run("show", "guide", "--tensors", "--json").events
    assert {row["type"] for row in rows} >= {"Q4_K", "Q8_0", "F32"}
    assert all(row["event"] == "tensor" and row["max_error"] == 0.0 for row in rows)
    assert all("exact" in row["becomes"] for row in rows)
    assert total["event"] == "total"
    assert total["tensors"] == len(rows)
    assert total["bytes_in_mlx"] == sum(row["bytes_in_mlx"] for row in rows)
    assert (total["max_error"], total["worst"]) == (0.0, None)


@pytest.mark.parametrize("other, becomes", [("16bit", "float16, rounded"), ("8bit", "affine 8-bit, rounded")])
def test_errors_are_those_of_the_choice(mixed: Path, other: str, becomes: str) -> None:
    *events, total = run("show", mixed, "--tensors", "--json", "--other", other).events
    rows = {row["name"]: row for row in events}
    row = rows["Q6_K.weight"]
    values = reference(random_blocks("Q6_K", (8, 512)), "Q6_K", (8, 512))
    if other == "16bit":
        values_in_mlx = values.astype(np.float16).astype(np.float32)
    else:
        values_in_mlx = in_mlx(repack8(random_blocks("Q6_K", (8, 512)), "Q6_K", (8, 512)))
    assert row["max_error"] == float(np.abs(values_in_mlx - values).max()) > 0
    assert row["becomes"] == becomes
    assert row["relative_error"] == pytest.approx(row["max_error"] / float(np.abs(values).max()))
    assert row["shape"] == [8, 512]
    assert row["bytes_in_mlx"] == 8 * 512 * 2 if other == "16bit" else 8 * 512 * 10 // 8
    exact = [name for name, row in rows.items() if row["max_error"] == 0.0]
    assert ("IQ4_NL.weight" in exact) == (other == "8bit")
    assert {"Q4_K.weight", "norm.weight", "half.weight"} <= set(exact)
    assert total["max_error"] == max(row["max_error"] for row in events)


def test_a_wrong_scale_is_noticed(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read_header(mixed)
    right = measuring.convert_blocks

    def wrong(*args: object) -> object:
        affine = right(*args)  # type: ignore[arg-type]
        affine.scales[0, -1] *= np.float32(1.001)  # type: ignore[union-attr]
        return affine

    assert measure(file, file.tensors["Q4_K.weight"]).largest_error == 0.0
    monkeypatch.setattr(measuring, "convert_blocks", wrong)
    assert measure(file, file.tensors["Q4_K.weight"]).largest_error > 0.0


def test_text_has_a_line_for_each_tensor_and_a_total(mixed: Path) -> None:
    lines = run("show", mixed, "--tensors").out.splitlines()
    assert lines[0].startswith("TENSOR")
    assert [line.split()[0] for line in lines[1:6]] == list(read_header(mixed).tensors)
    assert "8 x 512" in lines[1]
    assert "affine 4-bit, exact" in lines[1]
    assert lines[-1].startswith("5 tensors: ")
    assert "relatively most in " in lines[-1]


def test_what_overflows_float16_is_shown(tmp_path: Path) -> None:
    blocks = random_blocks("Q6_K", (1, 256)).reshape(1, -1)
    blocks[:, 208:210] = np.float16([60000]).view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "huge.gguf", "llama")
    writer.add_tensor("huge", blocks, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    row, total = run("show", tmp_path / "huge.gguf", "--tensors", "--json").events
    assert row["max_error"] == total["max_error"] == "inf"
    assert total["worst"] == "huge"


def test_mistakes_are_explained(tmp_path: Path) -> None:
    fails(run("show", "guide", "--other", "8bit"), 2, "Add --tensors")
    fails(run("show", "nothing", "--tensors", "--json"), 1, "There is no model or adapter 'nothing'")
