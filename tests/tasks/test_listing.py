"""Rows of what other programs keep, and that a listing opens each file once only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localllm.engine.base import Engine, Finished, TextDelta
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks import listing
from localllm.tasks.ask import ask
from localllm.tasks.chat import open_chat
from localllm.tasks.inventory import show
from localllm.tasks.opening import open_model
from localllm.types import Sampling
from tests.engine.helpers import write_adapter
from tests.store.foreign.places import hub, ollama
from tests.store.foreign.test_find import MLX

QUERY = {"blk.0.attn_q.weight": (256, 256)}


@pytest.fixture
def registry(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Registry(home)


def said(engine: Engine) -> str:
    events = ask(engine, "Who are you?", Sampling(max_tokens=12))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_rows_say_whose_it_is_and_what_is_wrong(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    lora = write_adapter(tmp_path / "lora.gguf", QUERY)
    files = {"m-Q4_0.gguf": guide_path.read_bytes(), "lora-F16.gguf": lora.read_bytes(), "bad-Q8_0.gguf": b"GGUF"}
    hub(tmp_path / "hub", "owner/m", files)
    hub(tmp_path / "hub", "mlx-community/tiny", MLX)
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    rows = {row["name"]: row for row in listing.list_foreign(registry)}
    assert list(rows) == ["ollama:tiny:1b", "hub:mlx-community/tiny", "hub:owner/m:Q4_0", "hub:owner/m:Q8_0"]
    assert (rows["ollama:tiny:1b"]["owner"], rows["ollama:tiny:1b"]["architecture"]) == ("Ollama", "llama")
    assert rows["hub:owner/m:Q4_0"]["bytes"] == guide_path.stat().st_size
    assert "error" in rows["hub:owner/m:Q8_0"]
    assert rows["hub:mlx-community/tiny"]["quantization"] == "4-bit groups"


def test_a_second_listing_opens_nothing(registry: Registry, guide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = registry.home.root / "folder"
    models.mkdir(parents=True)
    for number in range(5):
        shutil.copy(guide_path, models / f"m{number}.gguf")
    registry.home.folders_file.write_text(f'["{models}"]')
    first = listing.list_foreign(registry)
    monkeypatch.setattr(listing, "_facts_of", lambda path: pytest.fail(f"{path} was opened"))
    assert listing.list_foreign(registry) == first
    assert len(first) == 5


def test_a_model_of_ollama_chats_with_its_own_prompt_and_adapter(
    registry: Registry, tmp_path: Path, guide_path: Path
) -> None:
    lora = write_adapter(tmp_path / "lora.gguf", QUERY, std=1.0)
    layers = [("model", guide_path.read_bytes()), ("system", b"Be brief."), ("params", b'{"stop": ["e"]}')]
    ollama(tmp_path / "ollama", "library/plain/1b", layers)
    ollama(tmp_path / "ollama", "library/tuned/1b", [*layers, ("adapter", lora.read_bytes())])
    plain, tuned, base = (open_model(registry, name) for name in ("plain:1b", "tuned:1b", "guide"))
    texts = [said(opened.engine) for opened in (plain, tuned, base)]
    assert texts[0] == texts[2] != texts[1]
    for opened in (plain, tuned, base):
        opened.engine.close()
    chat = open_chat(registry, "ollama:tuned:1b", n_ctx=512, n_threads=1)
    assert chat.session.system == "Be brief."
    assert isinstance(list(chat.send("Hello"))[-1], Finished)
    chat.use_adapter(None)
    chat.close()
    facts = show(registry, "tuned:1b")
    assert (facts["system"], facts["stop"], facts["source"]) == ("Be brief.", "e", "foreign")
    assert facts["own_adapters"].startswith(str(tmp_path / "ollama/blobs"))


def test_ollamas_template_serves_a_file_without_one(registry: Registry, tmp_path: Path, stories: Path) -> None:
    template = b"{{ .System }}<|im_start|>user\n{{ .Prompt }}<|im_end|>"
    ollama(tmp_path / "ollama", "library/s/1b", [("model", stories.read_bytes()), ("template", template)])
    opened = open_model(registry, "s:1b")
    assert opened.engine.info.has_template
    opened.engine.close()
