"""The verdict on a run's memory, and the settings that would fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.cli.main import main
from localllm.errors import TrainingError
from localllm.tasks.memory import SPARE, check_fit, refusal, settings_of, shrunk
from localllm.tasks.settings import Settings
from localllm.tune.config import TrainConfig
from localllm.types import Example
from localllm.weights.fit import TrainingSettings, model_of, training
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.inference import chatting

ASKED = TrainingSettings(rows=8, length=512)


@pytest.fixture
def header(guide_path: Path) -> GGUFFile:
    return read_header(guide_path)


def _bytes(header: GGUFFile, settings: TrainingSettings) -> int:
    return int(training(model_of(header), settings).total / (1 - SPARE)) + 2


def test_what_fits_is_left_as_it_is(header: GGUFFile) -> None:
    fit = check_fit(header, ASKED, memory=_bytes(header, ASKED))
    assert fit.fits
    assert fit.suggestion is None
    assert fit.changes() == {}


def test_the_batch_gets_shorter_first_and_the_step_stays(header: GGUFFile) -> None:
    fit = check_fit(header, ASKED, memory=_bytes(header, ASKED) - 100)
    assert not fit.fits
    assert fit.changes() == {"batch_size": 4, "accumulate": 2}
    assert fit.as_options() == "--batch-size 4 --accumulate 2"


@pytest.mark.parametrize(
    "smaller",
    [{"rows": 2}, {"rows": 1, "grad_checkpoint": True}, {"rows": 1, "grad_checkpoint": True, "rank": 4}],
)
def test_what_is_suggested_fits(header: GGUFFile, smaller: dict[str, int]) -> None:
    memory = _bytes(header, replace(ASKED, accumulate=8, **smaller))
    fit = check_fit(header, ASKED, memory=memory)
    assert fit.suggestion is not None
    assert training(model_of(header), fit.suggestion).total <= memory * (1 - SPARE)
    assert fit.suggestion.rows * fit.suggestion.accumulate == ASKED.rows
    assert fit.suggestion.length == ASKED.length


def test_a_request_takes_the_settings_that_fit(header: GGUFFile) -> None:
    request = Settings(batch_size=8, rank=32, learning_rate=1e-4)
    fit = check_fit(header, ASKED, memory=_bytes(header, ASKED) - 100)
    assert shrunk(request, fit) == replace(request, batch_size=4, accumulate=2)
    with pytest.raises(TrainingError, match="GB of memory"):
        shrunk(request, check_fit(header, ASKED, memory=1_000_000))


def test_rows_that_would_be_too_long_are_counted_and_said(header: GGUFFile) -> None:
    asked = replace(ASKED, rows=1, length=1024, grad_checkpoint=True, rank=4)
    memory = _bytes(header, replace(asked, length=600))
    fit = check_fit(header, asked, [100, 700, 1024], memory)
    assert fit.suggestion is not None
    assert fit.suggestion.length < 600
    assert fit.too_long == 2
    assert "2 rows are longer" in refusal(fit).hint
    assert "--auto" in refusal(fit).hint


def test_where_nothing_fits_that_is_said(header: GGUFFile) -> None:
    fit = check_fit(header, ASKED, memory=1_000_000)
    assert fit.suggestion is None
    assert "GB of memory" in refusal(fit).message
    assert "smaller model" in refusal(fit).hint


def test_the_batch_that_weighs_most_decides() -> None:
    rows = [Example((1,) * n, (False,) * (n - 5) + (True,) * 5) for n in (10, 10, 10, 100, 100)]
    config = TrainConfig(epochs=1, batch_size=3, learning_rate=1e-3, optimizer="lion", dropout=0.1)
    found = settings_of(config, rows, "float32")
    assert (found.rows, found.length, found.supervised) == (2, 100, 0.05)
    assert (found.optimizer_copies, found.dropout) == (1, True)


def test_the_command_says_what_would_fit(guide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["fit", str(guide_path), "--batch-size", "8", "--max-length", "512", "--memory", "0.4"]
    assert main(asked) == 0
    assert "It does not fit" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["training"]["fits"] is False
    assert found["chat"]["fits"] is True
    assert found["chat"]["would_fit"] is None
    assert found["training"]["would_fit"]["batch_size"] < 8


def test_the_command_says_what_would_fit_to_chat_with(guide_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = chatting(read_header(guide_path), 1024).needed
    asked = ["fit", str(guide_path), "--ctx", "2048", "--memory", str((needed / (1 - SPARE) + 100) / 1e9)]
    assert main(asked) == 0
    assert "It does not fit: nine tenths of the memory may be used. This would: --ctx 1024." in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["chat"]
    assert (found["fits"], found["would_fit"]) == (False, ["--ctx 1024"])


def test_the_command_takes_batches_from_the_data(
    guide_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}, of course."} for n in range(20)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["fit", str(guide_path), "--data", str(data), "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["training"]["settings"]
    assert settings["rows"] == 4
    assert 8 < settings["length"] < 64


def test_the_command_refuses_what_cannot_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--batch-size", "0"]) == 2
    assert "--batch-size" in capsys.readouterr().err
