"""Export: what each target holds, that it loads where it is meant to, and that nothing is lost when it fails."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from localllm.engine.adapters import check_adapter
from localllm.engine.template import NAMED, ChatTemplate
from localllm.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    CancelledError,
    StorageError,
    UnsupportedModelError,
    UsageError,
)
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.exporting import Exported, ExportNote, ExportRequest, Target, export
from localllm.tasks.importing import ImportRequest, import_adapter
from localllm.tasks.modelfile import chat_of, modelfile
from localllm.tasks.outputs import link_or_copy
from localllm.types import Message
from localllm.weights import mlx_lm, peft
from localllm.weights.adapter import Adapter, read_folder
from localllm.weights.gguf import read_header
from localllm.weights.lora import read_gguf
from localllm.weights.names import EMBEDDING, modules
from localllm.weights.quant import dequantize, read_blocks
from tests.engine.helpers import write_adapter
from tests.tasks.modelfiles import fill, parse
from tests.weights.bases import base, delta, pair
from tests.weights.oracle import fixture

GOLDEN = Path(__file__).parents[1] / "weights/adapters"
LLAMA = GOLDEN / "llama.gguf"


@pytest.fixture
def registry(home: Home) -> Registry:
    """With one adapter, "ends", on embedding, output and q of a tiny llama."""
    found = Registry(home)
    list(import_adapter(found, ImportRequest(GOLDEN / "llama-ends", str(LLAMA), "ends")))
    return found


def exported(registry: Registry, to: Target, out: Path, *adapters: str | tuple[str, float], **more: object) -> Exported:
    named = [(a, 1.0) if isinstance(a, str) else a for a in adapters or ("ends",)]
    done = list(export(registry, ExportRequest(named, to, out, **more)))[-1]  # type: ignore[arg-type]
    assert isinstance(done, Exported)
    return done


def values(path: Path, name: str) -> np.ndarray:
    file = read_header(path)
    return dequantize(read_blocks(file, file.tensors[name]), file.tensors[name].type, file.tensors[name].shape)


def test_gguf_is_the_file_itself_or_one_of_another_strength(registry: Registry, tmp_path: Path) -> None:
    exported(registry, "gguf", tmp_path / "a.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == registry.adapter("ends").path.read_bytes()
    exported(registry, "gguf", tmp_path / "half.gguf", ("ends", 0.5))
    file = read_header(LLAMA)
    check_adapter(tmp_path / "half.gguf", file)
    whole, half = read_gguf(tmp_path / "a.gguf", file), read_gguf(tmp_path / "half.gguf", file)
    assert half.scale == whole.scale / 2
    assert read_header(tmp_path / "half.gguf").metadata["localllm.base.sha256"] == registry.sha256(LLAMA)


def test_folders_of_peft_and_mlx_come_back_as_the_same_adapter(registry: Registry, tmp_path: Path) -> None:
    original = read_folder(registry.adapter("ends").path.parent)
    done = exported(registry, "peft", tmp_path / "peft")
    assert set(done.files) == {"adapter_config.json", "adapter_model.safetensors"}
    exported(registry, "mlx", tmp_path / "mlx")
    for found in (
        peft.read(tmp_path / "peft", read_header(LLAMA))[0],
        mlx_lm.read(tmp_path / "mlx")[0],
    ):
        assert (found.rank, found.alpha) == (original.rank, original.alpha)
        assert all(np.array_equal(found.tensors()[name], value) for name, value in original.tensors().items())
    for path in tmp_path.glob("[pm]*/*"):
        assert os.fsencode(tmp_path) not in path.read_bytes()
        assert path.stat().st_mode & 0o444 == 0o444 & ~_umask(), "others may read it as they may read other files"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_merged_adds_several_at_their_strengths(registry: Registry, tmp_path: Path) -> None:
    """One by its name, one from a folder that was never imported."""
    second = GOLDEN / "llama-plain"
    done = exported(registry, "merged", tmp_path / "m.gguf", ("ends", 0.5), (str(second), 2.0))
    assert done.kept is not None
    assert done.kept > 0.99
    file = read_header(LLAMA)
    first, other = read_folder(registry.adapter("ends").path.parent), peft.read(second, file)[0]
    change = 0.5 * first.scale * delta(*first.layers[EMBEDDING], embedding=True)
    np.testing.assert_allclose(
        values(tmp_path / "m.gguf", "token_embd.weight"), values(LLAMA, "token_embd.weight") + change, atol=2e-3
    )
    v = "model.layers.0.self_attn.v_proj"
    np.testing.assert_allclose(
        values(tmp_path / "m.gguf", "blk.0.attn_v.weight"),
        values(LLAMA, "blk.0.attn_v.weight") + 2 * other.scale * delta(*other.layers[v]),
        atol=2e-3,
    )
    assert read_header(tmp_path / "m.gguf").kind == "model"


def test_a_merge_that_rounding_swallows_is_told(registry: Registry, tmp_path: Path) -> None:
    file = read_header(fixture("llama"))
    path, slot = next(iter(modules(file).items()))
    a, b = pair(slot.shape, 2, 0)
    folder = tmp_path / "weak"
    folder.mkdir()
    mlx_lm.write(folder, Adapter(2, 2.0, {path: (a * np.float32(1e-3), b * np.float32(1e-3))}))

    def notes(**more: object) -> list[str]:
        named, out = [(str(folder), 1.0)], tmp_path / "m.gguf"
        request = ExportRequest(named, "merged", out, str(file.path), overwrite=True, **more)  # type: ignore[arg-type]
        return [e.message for e in export(registry, request) if isinstance(e, ExportNote)]

    (note,) = notes()
    assert "Rounding left only" in note
    assert slot.tensor in note
    assert notes(type="F32") == []


def test_an_embedding_that_is_the_output_can_be_merged_only(home: Home, tmp_path: Path) -> None:
    tied, folder = base(tmp_path / "tied.gguf", tied=True), tmp_path / "mlx"
    folder.mkdir()
    adapter = Adapter(2, 4.0, {EMBEDDING: pair((40, 32), 2, 0, embedding=True)})
    mlx_lm.write(folder, adapter)
    registry, name = Registry(home), str(folder)
    with pytest.raises(AdapterError, match="--to merged"):
        exported(registry, "gguf", tmp_path / "a.gguf", name, model=str(tied.path))
    exported(registry, "merged", tmp_path / "m.gguf", name, model=str(tied.path))
    change = 2.0 * delta(*adapter.layers[EMBEDDING], embedding=True)
    expected = values(tied.path, "token_embd.weight") + change
    np.testing.assert_allclose(values(tmp_path / "m.gguf", "token_embd.weight"), expected, rtol=1e-5, atol=1e-5)
    events = list(export(registry, ExportRequest([(name, 1.0)], "ollama", tmp_path / "o", str(tied.path))))
    assert any(isinstance(e, ExportNote) and "merged model is written" in e.message for e in events)
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["Modelfile", "merged.gguf"]
    assert parse((tmp_path / "o/Modelfile").read_text()) == [("FROM", "./merged.gguf")]
    np.testing.assert_allclose(values(tmp_path / "o/merged.gguf", "token_embd.weight"), expected, rtol=1e-5, atol=1e-5)


def test_a_gguf_lora_needs_no_architecture_that_localllm_knows(home: Home, tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", "starcoder2")
    lora = write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight": (32, 32)}, architecture="starcoder2")
    registry, model = Registry(home), str(file.path)
    exported(registry, "gguf", tmp_path / "same.gguf", str(lora), model=model)
    assert (tmp_path / "same.gguf").read_bytes() == lora.read_bytes()
    assert set(exported(registry, "ollama", tmp_path / "o", str(lora), model=model).files) == {
        "Modelfile", "adapter.gguf", "base.gguf",
    }  # fmt: skip
    exported(registry, "merged", tmp_path / "m.gguf", str(lora), model=model)
    before, after = (values(path, "blk.0.attn_q.weight") for path in (file.path, tmp_path / "m.gguf"))
    change = values(lora, "blk.0.attn_q.weight.lora_b") @ values(lora, "blk.0.attn_q.weight.lora_a")
    np.testing.assert_allclose(after, before + change, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="starcoder2"):
        exported(registry, "mlx", tmp_path / "mlx", str(lora), model=model)
    assert not (tmp_path / "mlx").exists()


def test_ollama_s_folder_is_complete(registry: Registry, tmp_path: Path) -> None:
    done = exported(registry, "ollama", tmp_path / "o")
    assert set(done.files) == {"Modelfile", "adapter.gguf", "base.gguf"}
    instructions = parse((tmp_path / "o/Modelfile").read_text())
    assert instructions[:2] == [("FROM", "./base.gguf"), ("ADAPTER", "./adapter.gguf")]
    assert (tmp_path / "o/base.gguf").samefile(LLAMA), "a hard link takes no space"
    exported(registry, "ollama", tmp_path / "copied", copy=True)
    assert not (tmp_path / "copied/base.gguf").samefile(LLAMA)
    assert (tmp_path / "copied/base.gguf").read_bytes() == LLAMA.read_bytes()


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma"])
def test_ollama_s_template_writes_what_the_model_s_own_does(tmp_path: Path, name: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_chat_template("{# of somebody else #}" + NAMED[name])
    writer.add_tensor("x", np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    chat = chat_of(read_header(tmp_path / "m.gguf"))
    assert chat is not None
    instructions = dict(
        parse(modelfile("base.gguf", "adapter.gguf", chat, {"temperature": 0.7, "top_k": 40.0, "x": 1}))
    )
    assert instructions["TEMPLATE"] == chat.template
    assert instructions["PARAMETER stop"] == chat.stop
    assert (instructions["PARAMETER temperature"], instructions["PARAMETER top_k"]) == ("0.7", "40")
    turns = [Message("user", "Hi"), Message("assistant", "Ho")]
    turns = [*([Message("system", "Be brief.")] if name != "gemma" else []), *turns]
    system = turns[0].content if turns[0].role == "system" else ""
    written = fill(instructions["TEMPLATE"], System=system, Prompt="Hi", Response="Ho")
    assert written == ChatTemplate(NAMED[name]).render(turns, add_generation_prompt=False)


def test_a_template_of_another_kind_is_left_to_ollama(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    assert chat_of(read_header(LLAMA)) is None
    assert chat_of(read_header(guide_path)) is not None
    with pytest.raises(ValueError, match="no instruction"):
        parse("FORM ./base.gguf\n")
    with pytest.raises(ValueError, match="do not close"):
        parse('FROM ./base.gguf\nTEMPLATE """a\n')
    with pytest.raises(ValueError, match="one FROM"):
        parse("# nothing\nADAPTER ./a.gguf\n")


def test_nothing_is_replaced_unless_asked_and_nothing_else_ever(registry: Registry, tmp_path: Path) -> None:
    out, folder = tmp_path / "a.gguf", tmp_path / "peft"
    out.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        exported(registry, "gguf", out)
    assert out.read_text() == "mine"
    exported(registry, "gguf", out, overwrite=True)
    exported(registry, "peft", folder)
    exported(registry, "mlx", folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapters.safetensors"]
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds thesis\.txt"):
        exported(registry, "mlx", folder, overwrite=True)
    with pytest.raises(StorageError, match="has to be a file, and is a folder"):
        exported(registry, "gguf", folder, overwrite=True)
    with pytest.raises(StorageError, match="has to be a folder, and is a file"):
        exported(registry, "mlx", out, overwrite=True)
    own = tmp_path / "base.gguf"
    shutil.copy(LLAMA, own)
    with pytest.raises(UsageError, match="is the base itself"):
        exported(registry, "merged", own, str(GOLDEN / "llama-plain"), model=str(own), overwrite=True)
    assert own.read_bytes() == LLAMA.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "base.gguf", "home", "peft"]


def test_mistakes_are_named(registry: Registry, tmp_path: Path) -> None:
    out = tmp_path / "x"
    with pytest.raises(UsageError, match="Only --to merged takes several"):
        exported(registry, "peft", out, "ends", "ends")
    with pytest.raises(UsageError, match="weights of a merged model"):
        exported(registry, "gguf", out, type="Q8_0")
    with pytest.raises(UsageError, match="base beside a Modelfile"):
        exported(registry, "gguf", out, copy=True)
    with pytest.raises(UsageError, match="does not say which model"):
        exported(registry, "gguf", out, str(GOLDEN / "llama-plain"))
    pickle = tmp_path / "adapter_model.bin"
    pickle.touch()
    with pytest.raises(AdapterError, match="is a pickle"):
        exported(registry, "gguf", out, str(pickle), model=str(LLAMA))
    with pytest.raises(AdapterNotFoundError, match="no adapter named 'nobody'"):
        exported(registry, "gguf", out, "nobody")
    with pytest.raises(AdapterMismatchError, match=r"made for llama .*not for this qwen3"):
        exported(registry, "gguf", out, model=str(GOLDEN / "qwen3.gguf"))
    with pytest.raises(AdapterMismatchError, match=r"k_proj .*\(32, 32\), but .* \(16, 32\)"):
        exported(registry, "mlx", out, str(GOLDEN / "qwen3-rslora"), model=str(LLAMA))
    with pytest.raises(StorageError, match="cannot be written"):
        exported(registry, "gguf", LLAMA / "x")
    assert not out.exists()


def test_stopping_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    for to in ("gguf", "mlx", "merged", "ollama"):
        cancel = threading.Event()
        events = export(registry, ExportRequest([("ends", 1.0)], to, tmp_path / "x"), cancel)  # type: ignore[arg-type]
        next(events)
        cancel.set()
        with pytest.raises(CancelledError):
            list(events)
        assert [p.name for p in tmp_path.iterdir()] == ["home"]
    with pytest.raises(CancelledError):
        link_or_copy(LLAMA, tmp_path / "copy", copy=True, cancel=cancel)


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    exported(registry, "peft", folder)
    before = json.loads((folder / "adapter_config.json").read_text())
    rename, calls = os.rename, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StorageError, match="No space left"):
        exported(registry, "mlx", folder, overwrite=True)
    assert json.loads((folder / "adapter_config.json").read_text()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "home"]
