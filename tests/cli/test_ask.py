"""`localllm ask` as a child process."""

from __future__ import annotations

import json
from pathlib import Path

from localllm.handbook.entries import by_id
from tests.cli.helpers import fails, run

STORY = "Mira planted three apple trees behind the school. The children water them every morning."


def test_an_answer_is_printed_and_repeats() -> None:
    first = run("ask", "Hello")
    assert first.code == 0
    assert first.out.strip()
    assert first.err == ""
    assert run("ask", "Hello").out == first.out


def test_piped_text_comes_before_the_question() -> None:
    piped = run("ask", "Summarize the text above in one sentence.", stdin=STORY)
    typed = run("ask", f"{STORY}\n\nSummarize the text above in one sentence.")
    assert piped.code == 0
    assert piped.out == typed.out


def test_json_holds_text_counts_timings_and_reason() -> None:
    report = run("ask", "--json", "--max-tokens", "4", "Hello").json
    assert report["finish_reason"] in ("length", "stop")
    assert 0 < report["output_tokens"] <= 4
    assert report["prompt_tokens"] > 3
    assert report["seconds"] >= report["time_to_first_token"] > 0
    assert report["model"] == "guide"
    assert report["text"]


def test_a_model_without_a_template_continues_text(stories: Path) -> None:
    outcome = run("ask", "--model", stories, "--max-tokens", "20", "Once upon a time")
    assert outcome.out.startswith(", there was a little girl named Lily.")


def test_a_schema_makes_the_answer_json(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}))
    outcome = run("ask", "--schema", schema, "--max-tokens", "40", "Is it raining?")
    assert isinstance(json.loads(outcome.out)["ok"], bool)


def test_sampling_options_reach_the_engine() -> None:
    options = ["--no-handbook", "--temperature", "1.8", "--max-tokens", "24", "--top-p", "0.99"]
    hot = ["ask", *options, "Tell me about the sea."]
    texts = {run(*hot, "--seed", seed).out for seed in ("1", "2", "3")}
    assert len(texts) > 1
    assert run(*hot, "--seed", "1").out in texts
    biased = run("ask", "--json", "--logit-bias", "2=-inf", "--max-tokens", "50", "Hello").json
    assert (biased["finish_reason"], biased["output_tokens"]) == ("length", 50)


def test_text_for_a_pipe_is_cleaned_unless_raw_is_asked_for(tmp_path: Path) -> None:
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "a\\x1b]52;c;eA==\\x07b"')
    assert run("ask", "--grammar", grammar, "x").out == "a␛]52;c;eA==␇b\n"
    assert run("ask", "--grammar", grammar, "--raw", "x").out == "a\x1b]52;c;eA==\x07b\n"


def test_a_question_that_does_not_fit_says_by_how_much() -> None:
    fails(run("ask", "--ctx", "256", "word " * 600), 1, "tokens but the context holds 256", "too many", "--ctx")


def test_an_answer_cut_by_the_context_says_so() -> None:
    outcome = run("ask", "--ctx", "256", "--logit-bias", "2=-inf", "--logit-bias", "0=-inf", "Hello")
    assert outcome.code == 0
    assert "the answer was cut: the context of 256 tokens is full" in outcome.err


def test_the_built_in_model_answers_from_the_handbook_and_says_so() -> None:
    report = run("ask", "--json", "What is LoRA?")
    assert report.json["handbook"] == ["lora"]
    assert report.err.startswith("from the handbook: LoRA (lora)\n")
    assert report.json["source"].startswith("from the handbook: LoRA (lora)")
    assert any(sentence.replace("`", "") in report.json["text"] for sentence in by_id()["lora"].sentences)
    off = run("ask", "--json", "--no-handbook", "What is LoRA?")
    assert off.json["handbook"] == []
    assert off.err == ""
    assert off.json["prompt_tokens"] < report.json["prompt_tokens"] / 4


def test_what_the_handbook_lacks_is_said_without_asking_the_model() -> None:
    outcome = run("ask", "What is the capital of Mongolia?")
    assert outcome.code == 0
    assert outcome.out.startswith("The handbook has nothing on that")
    assert "localllm pull" in outcome.out
    report = run("ask", "--json", "What is the capital of Mongolia?").json
    assert (report["finish_reason"], report["handbook"]) == ("declined", [])


def test_another_model_looks_things_up_only_when_asked(stories: Path) -> None:
    plain = run("ask", "--json", "-m", stories, "--max-tokens", "4", "What is LoRA?")
    assert (plain.err, plain.json["handbook"]) == ("", [])
    told = run("ask", "--json", "--handbook", "-m", stories, "--max-tokens", "4", "What is LoRA?")
    assert (told.err, told.json["handbook"]) == ("from the handbook: LoRA (lora)\n", ["lora"])
    assert told.json["prompt_tokens"] > plain.json["prompt_tokens"]


def test_no_question_is_a_usage_error() -> None:
    fails(run("ask"), 2, "There is no question")
    fails(run("ask", "--logit-bias", "nonsense", "x"), 2, "TOKEN=BIAS")
    fails(run("ask", "--temperature", "-1", "x"), 2, "Temperature")
    fails(run("ask", "--template", "nope", "x"), 2, "chatml")


def test_every_bad_model_is_one_clear_line(tmp_path: Path, guide_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not a model")
    fails(run("ask", "-m", text, "x"), 1, "notes.gguf", "not a GGUF")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(guide_path.read_bytes()[:-5000])
    fails(run("ask", "-m", cut, "x"), 1, "cut.gguf", "truncated")
    fails(run("ask", "-m", tmp_path, "x"), 1, "is a folder")
    fails(run("ask", "-m", tmp_path / "none.gguf", "x"), 1, "There is no file")
    fails(run("ask", "-m", "giude", "x"), 1, "Did you mean guide?")
    fails(run("ask", "-a", "nope", "x"), 1, "There is no adapter named 'nope'")


def test_debug_shows_the_traceback() -> None:
    outcome = run("ask", "-m", "giude", "--debug", "x")
    assert outcome.code != 0
    assert "Traceback" in outcome.err
    assert "ModelNotFoundError" in outcome.err
