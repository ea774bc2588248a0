"""A model that memory does not hold is refused before it is loaded, with what would fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from localllm.cli.main import main
from localllm.errors import LocalLLMError, NoRoomError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.answer_local import local_answerer
from localllm.tasks.chat import open_chat
from localllm.tasks.opening import open_model
from localllm.tasks.room import SPARE, Wish, catalog_choice, check_room
from localllm.tasks.summary_here import BatchRequest, summarize_here
from localllm.types import ModelRef
from localllm.weights.gguf import read_header
from localllm.weights.inference import chatting
from scripts.fit_inference import Shape, write

BIG = Shape("", "llama", "gpt2", 8, 512, 1024, 8, 8, 64, 1024, 10, "F16", "F16")
"""Some 40 MB, and 16 kB of cache for a token."""


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def big(home: Home) -> ModelRef:
    home.models.mkdir(parents=True)
    write(BIG, home.models / "big.gguf")
    return ModelRef("big", home.models / "big.gguf", "home")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch):
    """Pretend that a model may take so many bytes."""

    def pretend(usable: int) -> None:
        monkeypatch.setattr("localllm.tasks.room.available_memory", lambda: int(usable / (1 - SPARE)) + 2)

    return pretend


def needed(model: ModelRef, n_ctx: int, n_slots: int = 1, *, exact: bool = False) -> int:
    return chatting(read_header(model.path), n_ctx, n_slots, exact=exact).needed


def test_the_estimate_decides_to_the_byte(registry: Registry, big: ModelRef, memory) -> None:
    memory(needed(big, 2048))
    check_room(registry, big, Wish(2048))
    memory(needed(big, 2048) - 10)
    with pytest.raises(NoRoomError, match=r"big needs about \d+ MB of memory for 2048 tokens of context, and \d+ MB"):
        check_room(registry, big, Wish(2048))


def test_an_adapter_counts(registry: Registry, big: ModelRef, memory, tmp_path: Path) -> None:
    adapter = tmp_path / "a.gguf"
    adapter.write_bytes(bytes(1000))
    memory(needed(big, 2048) + 500)
    check_room(registry, big, Wish(2048))
    with pytest.raises(NoRoomError):
        check_room(registry, big, Wish(2048), [adapter])


@pytest.mark.parametrize(
    "wish, fits, said",
    [
        (Wish(8192), (2048, 1), "--ctx 2048"),
        (Wish(None), (1024, 1), "--ctx 1024"),
        (Wish(1024, 8), (1024, 3), "3 at a time"),
        (Wish(1024, 2), (1024, 1), "one at a time"),
        (Wish(1024, 8), (512, 1), "--ctx 512"),
    ],
)
def test_fewer_answers_or_a_smaller_context_are_offered(
    registry: Registry, big: ModelRef, memory, wish: Wish, fits: tuple[int, int], said: str
) -> None:
    memory(needed(big, *fits))
    with pytest.raises(NoRoomError) as refused:
        check_room(registry, big, wish)
    assert f"This would fit: {said}" in refused.value.hint
    assert refused.value.hint.endswith("--force tries it all the same.")


def test_float32_keys_and_values_are_counted(registry: Registry, big: ModelRef, memory) -> None:
    memory(needed(big, 4096))
    check_room(registry, big, Wish(4096))
    with pytest.raises(NoRoomError, match="--ctx"):
        check_room(registry, big, Wish(4096, exact=True))


def test_another_model_of_this_machine_is_offered(registry: Registry, big: ModelRef, home: Home, memory) -> None:
    write(Shape("", "llama", "gpt2", 1, 64, 128, 2, 2, 32, 512, 10, "F16", "F16"), home.models / "small.gguf")
    small = ModelRef("small", home.models / "small.gguf", "home")
    memory(needed(small, 4096))
    with pytest.raises(NoRoomError, match=r"This would fit: --model small\. --force"):
        check_room(registry, big, Wish(4096))


def test_the_catalog_has_something_for_every_memory() -> None:
    assert catalog_choice(100_000_000) == ""
    assert catalog_choice(1_000_000_000) == "qwen2.5-0.5b"
    assert catalog_choice(64_000_000_000) in ("qwen3-14b", "phi-4")
    assert catalog_choice(64_000_000_000, 6_000_000_000) == catalog_choice(5_999_999_999) == "qwen3-8b"


def test_nothing_is_refused_where_nothing_is_known(
    registry: Registry, big: ModelRef, memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(1)
    check_room(registry, big, Wish(1_000_000))  # beyond what it was trained on, which opening says

    def silent() -> int:
        raise LocalLLMError("The system does not say.")

    monkeypatch.setattr("localllm.tasks.room.available_memory", silent)
    check_room(registry, big, Wish())


def test_whoever_opens_a_model_is_refused_and_can_insist(
    registry: Registry, guide_path: Path, memory, tmp_path: Path
) -> None:
    memory(1_000_000)
    document, out = tmp_path / "a.txt", tmp_path / "out.jsonl"
    document.write_text("A short text about a small thing.")
    asked = BatchRequest((document,), out, "guide")
    for refused in (
        lambda: open_model(registry, "guide", n_ctx=512),
        lambda: open_chat(registry, "guide", n_ctx=512),
        lambda: local_answerer(registry, "guide", n_ctx=512),
        lambda: next(summarize_here(registry, asked, n_ctx=512)),
    ):
        with pytest.raises(NoRoomError):
            refused()
    assert not out.exists()
    open_model(registry, "guide", n_ctx=512, force=True).engine.close()
    local_answerer(registry, "guide", n_ctx=512, force=True).close()


def test_a_chat_keeps_its_model_where_another_does_not_fit(
    registry: Registry, big: ModelRef, home: Home, guide_path: Path, memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(guide_path, home.models / "other.gguf")
    chat = open_chat(registry, "guide", n_ctx=512, n_threads=1)
    try:
        memory(1_000_000)
        monkeypatch.setattr("localllm.tasks.choosing.available_memory", lambda: 1_000_000)
        with pytest.raises(NoRoomError):
            chat.use_model("other")
        assert chat.model.name == "guide"
        assert chat.engine.tokenize("still here")
    finally:
        chat.close()


def test_the_commands_refuse_in_a_line_and_have_force(
    memory, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(1_000_000)
    monkeypatch.setattr("sys.stdin", None)
    requests = tmp_path / "requests.jsonl"
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    row = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    requests.write_text(json.dumps(row) + "\n")
    document = tmp_path / "a.txt"
    document.write_text("A short text about a small thing.")
    out = ["--out", str(tmp_path / "out.jsonl")]
    for command in (["ask", "Hi", "--no-handbook"], ["batch", str(requests), *out], ["summarize", str(document), *out]):
        assert main([*command, "--ctx", "512"]) == 1, command
        said = capsys.readouterr().err
        assert "guide needs about" in said
        assert "--force tries it all the same" in said
        assert not (tmp_path / "out.jsonl").exists()
    assert main(["ask", "Hi", "--no-handbook", "--ctx", "512", "--max-tokens", "2", "--force"]) == 0
    assert main(["batch", str(requests), *out, "--ctx", "512", "--force", "--quiet"]) == 0
