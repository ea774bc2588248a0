"""The network of an MLX folder against mlx-lm's own, in pieces, trimmed, and however its weights are held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.errors import InvalidModelError
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tune import network
from localllm.tune.network import Network
from localllm.weights.mlx_folder import read_model_folder
from tests.tune.mlx_folders import write_mlx_folder
from tests.tune.test_load import TOKENS
from tests.tune.test_load_folder import in_mlx_lm, mixed
from tests.weights.oracle import fixture

SAME = 1e-10
ROUNDED = 1e-5  # mlx-lm's Gemma 3 rounds the root of the width to bfloat16


def never() -> bool:
    return False


def opened(folder: Path, cache: Path) -> Network:
    return Network.open(read_model_folder(folder), cache, 1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "phi3", "qwen3moe"])
@pytest.mark.parametrize("form", [{}, {"bits": 4, "shards": 2}], ids=["16bit", "4bit"])
def test_the_logits_are_those_of_mlx_lm(name: str, form: dict[str, Any], tmp_path: Path) -> None:
    folder = write_mlx_folder(fixture(name), tmp_path / "mlx", **form)
    net = opened(folder, tmp_path)
    rows = net.forward(TOKENS, len(TOKENS), never)
    assert rows is not None
    assert kl(in_mlx_lm(folder), log_softmax(rows)) < (ROUNDED if name == "gemma3" else SAME)


@pytest.mark.parametrize("held", ["streamed", "quantized"])
def test_every_residence_computes_the_same(held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_mlx_folder(fixture("llama"), tmp_path / "mlx", bits=4, dtype=mx.float32, predicate=mixed)
    whole = opened(folder, tmp_path).forward(TOKENS, len(TOKENS), never)
    monkeypatch.setattr(network, "residence", lambda *_: held)
    other = opened(folder, tmp_path).forward(TOKENS, len(TOKENS), never)
    assert whole is not None
    assert other is not None
    assert kl(log_softmax(whole), log_softmax(other)) < 1e-9


def test_in_pieces_and_after_a_trim_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PIECE", 7)
    net = opened(write_mlx_folder(fixture("llama"), tmp_path / "mlx", bits=4), tmp_path)
    whole = net.forward(TOKENS, len(TOKENS), never)
    assert net.held == len(TOKENS)
    assert net.trim(20)
    rest = net.forward(TOKENS[20:], 3, never)
    assert whole is not None
    assert rest is not None
    assert np.abs(rest - whole[-3:]).max() < 1e-4
    assert net.trim(0)
    looks = iter([False, False, True])
    assert net.forward(TOKENS, 1, lambda: next(looks)) is None
    assert net.held == 14
    last = net.forward(TOKENS[14:], 1, never)
    assert last is not None
    assert np.abs(last[0] - whole[-1]).max() < 1e-4


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_mlx_folder(fixture("llama"), tmp_path / "mlx", bits=4)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"intermediate_size": ', '"intermediate_size": 1'))
    with pytest.raises(InvalidModelError, match=r"mlp\.\w+_proj\.weight"):
        opened(folder, tmp_path)
