"""The handbook in the chat: questions to the built-in model are looked up, and their source is shown and kept."""

from __future__ import annotations

import json
from pathlib import Path

from localllm.handbook.entries import by_id
from localllm.store.chats.exchange import export
from localllm.tasks.conversations import export_text
from localllm.tasks.looking_up import look_up
from localllm.tasks.reading import CHOSEN, DECLINED
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.settings import SettingsScreen
from localllm.tui.widgets.message import AssistantMessage
from localllm.tui.widgets.prompt import Prompt
from tests.tui.support import branch, opener, ready, say, scripted, shown, until

SIZE = (100, 40)
FIRST_ONE, SECOND = by_id()["lora"].readable[:2]
SOURCE = "from the handbook: LoRA (lora)"


def completed(*said: str, question: str = "What is LoRA?") -> str:
    """What the model said, and what the search adds to it."""
    found = look_up(question)
    assert found
    return " ".join([*said, *(one for one in found.deciding if one not in said)])


async def test_a_question_is_looked_up_and_stays_what_the_person_wrote():
    engine = scripted("Hello!", SECOND, "The text does not say.")
    app = LocalLLMApp(opener(engine, source="built-in"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        assert "handbook · " in shown(app)
        await say(pilot, "Hi there")
        await say(pilot, "What is LoRA?")
        passage = by_id()["lora"].plain
        assert engine.prompts == ["<user>Hi there<assistant>", f"<user>{passage}\n\nWhat is LoRA?<assistant>"]
        assert branch(app)[2:] == [("user", "What is LoRA?", "complete"), ("assistant", completed(SECOND), "complete")]
        assert SOURCE in shown(app)
        await say(pilot, "/retry")
        assert branch(app)[-1][1] == completed()
        assert CHOSEN in " ".join(shown(app).split())
        assert len(screen.query(".source")) == 1
        await say(pilot, "Who painted the Mona Lisa?")
        assert len(engine.prompts) == 3
        assert DECLINED in shown(app)
        turns = [turn.source for turn in app.store.turns.branch(1)]
        assert turns == ["", "", "", f"{SOURCE} · {CHOSEN}", "", DECLINED]
        exported = export(app.store)["chats"][0]["turns"]
        assert [turn["source"] for turn in exported if turn["source"]] == [SOURCE, f"{SOURCE} · {CHOSEN}", DECLINED]
        assert f"\n({SOURCE} · {CHOSEN})\n" in export_text(app.store, 1, markdown=True)


async def test_an_edited_question_and_a_reply_that_was_cut_are_looked_up_too():
    engine = scripted(FIRST_ONE, f"{FIRST_ONE} {SECOND}")
    app = LocalLLMApp(opener(engine, source="built-in"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "What is a LoRA?")
        screen.edit(app.store.turns.branch(1)[0])
        screen.query_one(Prompt).text = "What is LoRA?"
        await pilot.press("enter")
        await until(pilot, lambda: len(engine.prompts) == 2 and not screen.busy)
        assert branch(app)[-1][1] == completed(FIRST_ONE, SECOND)
        reply = app.store.turns.branch(1)[-1]
        app.store.turns.end(reply.id, FIRST_ONE[:20], "cut", reply.stats, reply.source)
        engine.script = (f"{FIRST_ONE[20:]} {SECOND}",)
        app.host.go_on(reply.id)
        await ready(pilot)
        assert engine.prompts[2].endswith(f"What is LoRA?<assistant>{FIRST_ONE[:20]}")
        assert branch(app)[-1] == ("assistant", completed(FIRST_ONE, SECOND), "complete")
        assert app.store.turns.branch(1)[-1].source == SOURCE


async def test_it_is_off_for_other_models_and_can_be_turned_on_and_off():
    engine = scripted("In my own words.")
    app = LocalLLMApp(opener(engine, "tickets"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        assert "handbook · " not in shown(app)
        await say(pilot, "What is LoRA?")
        await say(pilot, "/handbook on")
        assert "handbook · " in shown(app)
        await say(pilot, "What is LoRA?")
        await say(pilot, "Who painted the Mona Lisa?")
        first, second, third = engine.prompts
        assert first == "<user>What is LoRA?<assistant>"
        assert second.startswith(f"{first}In my own words.<user>{by_id()['lora'].plain}")
        assert third.endswith("<user>Who painted the Mona Lisa?<assistant>")
        assert [turn.source for turn in app.store.turns.branch(1)][1::2] == ["", SOURCE, ""]
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        app.screen.query_one("#handbook").value = "off"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await ready(pilot)
        assert "handbook · " not in shown(app)
        assert json.loads(app.store.chat(1).settings.to_json())["handbook"] is False
        screen.action_handbook()
        await ready(pilot)
        assert app.store.chat(1).settings.handbook is True


async def test_an_adapter_turns_it_off_and_compared_replies_get_the_same_prompt():
    engine, beside = scripted("Base."), scripted("Taught.")
    app = LocalLLMApp(opener(engine, "tickets", source="built-in", beside=beside))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await ready(pilot)
        await say(pilot, "/adapter tickets")
        assert "handbook · " not in shown(app)
        await say(pilot, "What is LoRA?")
        assert engine.prompts == ["<user>What is LoRA?<assistant>"]
        await say(pilot, "/compare tickets")
        await say(pilot, "/handbook on")
        await say(pilot, "What is LoRA?")
        assert engine.prompts[-1] == beside.prompts[-1]
        assert by_id()["lora"].plain in engine.prompts[-1]
        assert [reply.text for reply in screen.query(AssistantMessage)] == ["Base.", "Base.", "Taught."]
        assert len(screen.query(".source")) == 2


async def test_the_built_in_model_answers_from_the_handbook(tmp_path: Path):
    from localllm.paths import Home
    from localllm.store.registry import Registry
    from localllm.tasks.chat import open_chat

    app = LocalLLMApp(lambda: open_chat(Registry(Home(tmp_path)), "guide"))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "What is LoRA?")
        answer = branch(app)[-1][1]
        assert answer
        for sentence in by_id()["lora"].readable:
            answer = answer.replace(sentence, "")
        assert not answer.strip()
        assert SOURCE in shown(app)
    app.host.close()
