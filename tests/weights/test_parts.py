"""Models in several files, and headers of which only the beginning is here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import InvalidModelError, ModelNotFoundError
from localllm.weights.gguf import read_header
from localllm.weights.parts import finished, joined, read_beginning, read_model
from tests.hub.models import split


def test_parts_written_by_gguf_py_are_one_model_to_us_and_to_llama_cpp(guide_path: Path, tmp_path: Path) -> None:
    parts = split(guide_path, tmp_path / "g.gguf", 30)
    assert [part.name for part in parts] == ["g-00001-of-00002.gguf", "g-00002-of-00002.gguf"]
    whole, file = read_header(guide_path), read_model(parts[0])
    assert {n: (t.shape, t.type) for n, t in file.tensors.items()} == {
        n: (t.shape, t.type) for n, t in whole.tensors.items()
    }
    assert file.size == sum(part.stat().st_size for part in parts)
    split_engine, engine = LlamaEngine.open(parts[0], n_ctx=64), LlamaEngine.open(guide_path, n_ctx=64)
    assert split_engine.tokenize("one model") == engine.tokenize("one model")
    assert split_engine.info.n_params == engine.info.n_params
    assert split_engine.info.size_bytes == file.size
    split_engine.close()
    engine.close()


def test_a_part_that_is_missing_or_another_is_refused(guide_path: Path, tmp_path: Path) -> None:
    first, second = split(guide_path, tmp_path / "g.gguf", 30)
    with pytest.raises(InvalidModelError, match="one of 2 parts"):
        read_header(first)  # for whoever reads tensors from the file itself
    shutil.copy(first, tmp_path / "kept")
    shutil.copy(second, first)
    with pytest.raises(InvalidModelError, match="not part 1 of 2"):
        read_model(first)
    shutil.copy(tmp_path / "kept", first)
    second.unlink()
    with pytest.raises(ModelNotFoundError, match="00002-of-00002"):
        read_model(first)


@pytest.mark.parametrize("step", [1000, 50_000])
def test_a_header_is_read_from_its_beginning_and_says_what_is_lacking(guide_path: Path, step: int) -> None:
    content, whole = guide_path.read_bytes(), read_header(guide_path)
    have = step
    while isinstance(found := read_beginning(guide_path, content[:have], len(content)), int):
        assert have < found <= len(content)
        have = max(found, have + step)
    assert have < whole.data_offset + 2 * step
    file = finished(found)
    assert file.tensors == whole.tensors
    assert file.metadata.keys() == whole.metadata.keys()


def test_a_beginning_that_no_byte_would_mend_is_refused_at_once(guide_path: Path) -> None:
    content = guide_path.read_bytes()
    with pytest.raises(InvalidModelError, match="not a GGUF"):
        read_beginning(guide_path, b"<htm" + content[4:100], len(content))
    with pytest.raises(InvalidModelError, match="truncated"):  # the file is shorter than its header says
        read_beginning(guide_path, content[:200_000], 200_000)


def test_parts_of_two_models_are_not_joined(guide_path: Path, tmp_path: Path) -> None:
    parts = split(guide_path, tmp_path / "g.gguf", 30)
    read = []
    for part in (parts[0], parts[0]):
        content = part.read_bytes()
        found = read_beginning(part, content, len(content))
        assert not isinstance(found, int)
        read.append(found)
    with pytest.raises(InvalidModelError, match="not part 2 of 2"):
        joined(read)
