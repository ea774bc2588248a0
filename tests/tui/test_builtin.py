"""The app on the built-in model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from localllm.engine.base import StepEvent, TextDelta
from localllm.engine.worker import WorkerEngine
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tui.app import LocalLLMApp
from localllm.tui.widgets.message import AssistantMessage
from localllm.tui.widgets.status import StatusBar
from localllm.types import Sampling
from tests.tui.support import branch, ready, say, shown, type_in, until


async def test_two_turns_on_the_built_in_model(tmp_path: Path):
    from localllm.tasks.chat import open_chat

    app = LocalLLMApp(lambda: open_chat(Registry(Home(tmp_path)), "guide"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot)
        assert "Things to try" in shown(app)
        await say(pilot, "Hello!")
        used = screen.query_one(StatusBar).context[0]
        await say(pilot, "Who are you?")
        replies = screen.query(AssistantMessage)
        assert len(replies) == 2
        assert all(reply.text.strip() for reply in replies)
        assert screen.query_one(StatusBar).context[0] > used > 0
    app.host.close()


async def test_a_crash_of_the_engine_costs_one_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from localllm.tasks.chat import open_chat

    # a reply that goes on until the context is full
    sampling = Sampling(logit_bias=((0, float("-inf")), (2, float("-inf"))))
    app = LocalLLMApp(lambda: open_chat(Registry(Home(tmp_path)), "guide", sampling=sampling, n_threads=1))
    async with app.run_test(size=(100, 40)) as pilot:
        screen = await ready(pilot)
        chat = app.host._chat
        assert chat is not None
        assert isinstance(chat.engine, WorkerEngine)
        app.host._default = Sampling(max_tokens=8)
        await say(pilot, "Hello!")
        app.host._default = sampling
        step, killed = chat.engine.step, []

        def step_and_crash() -> list[StepEvent]:
            """The engine is faster than the screen: only here it is certain that the reply goes on."""
            events = step()
            if not killed and any(isinstance(event, TextDelta) for event in events):
                killed.append(chat.engine.pid)
                os.kill(chat.engine.pid, signal.SIGSEGV)
            return events

        monkeypatch.setattr(chat.engine, "step", step_and_crash)
        await type_in(pilot, "Who are you?")
        await until(pilot, lambda: "llama.cpp crashed (SIGSEGV)" in " ".join(shown(app).split()))
        await ready(pilot)
        assert [state for _, _, state in branch(app)] == ["complete", "cut", "complete", "cut"]
        app.host._default = Sampling(max_tokens=8)
        await say(pilot, "Who are you?")
        assert len(branch(app)) == 6
        assert screen.query(AssistantMessage).last().text.strip()
    app.host.close()
