"""`localllm import` and `export` as child processes: there and back, use in between, and mistakes in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.helpers import fails, run

GOLDEN = Path(__file__).parents[1] / "weights/adapters"
LLAMA, PLAIN = GOLDEN / "llama.gguf", GOLDEN / "llama-plain"


def test_an_adapter_from_elsewhere_is_listed_used_verified_and_taken_away(tmp_path: Path) -> None:
    done = run("import", PLAIN, "-m", LLAMA, "--name", "plain", "--json")
    assert done.code == 0, done.err
    started, *progress, last = done.events
    assert (started["event"], last["event"]) == ("started", "done")
    assert {e["event"] for e in progress} == {"progress", "item"}, "it was verified on the way in"
    assert (last["adapter"], last["format"], last["layers"], last["rank"]) == ("plain", "peft", 14, 4)
    assert {"path", "base_sha256", "bytes", "seconds", "peak_rss_mb"} <= last.keys()
    (row,) = run("list", "--json").json["adapters"]
    assert (row["name"], row["base"], row["verified"]) == ("plain", "llama", True)
    facts = run("show", "plain", "--json").json
    assert facts["source"]["format"] == "peft"
    prompt = ["ask", "--completion", "-m", LLAMA, "--max-tokens", "8", "def main"]
    assert run(*prompt).out != run(*prompt, "-a", "plain").out
    verified = run("verify", "plain", "--json")
    assert verified.code == 0, verified.err
    assert verified.events[-1]["passed"] is True
    taken = run("export", "plain", "--to", "peft", "--out", tmp_path / "peft", "--json")
    assert [e["event"] for e in taken.events] == ["started", "done"]
    assert set(taken.events[-1]["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    again = run("import", tmp_path / "peft", "-m", LLAMA)
    assert again.code == 0
    assert "adapter peft: " in again.out


def test_a_merge_reports_what_rounding_left(tmp_path: Path) -> None:
    done = run("export", f"{PLAIN}:0.5", "-m", LLAMA, "--to", "merged", "--out", tmp_path / "m.gguf", "--json")
    assert done.code == 0, done.err
    events = done.events
    assert events[0]["event"] == "started"
    assert [e["phase"] for e in events[1:-1]] == ["MergeStarted"] + ["MergeProgress"] * (len(events) - 3)
    assert events[-1]["kept"] > 0.99
    assert run("ask", "--completion", "-m", tmp_path / "m.gguf", "--max-tokens", "4", "def").code == 0


def test_the_folder_for_ollama_names_what_it_holds(tmp_path: Path) -> None:
    done = run("export", PLAIN, "-m", LLAMA, "--to", "ollama", "--out", tmp_path / "o")
    assert done.code == 0, done.err
    assert "base.gguf" in done.out
    assert "ollama create o -f" in done.err
    assert (tmp_path / "o/Modelfile").read_text().startswith("FROM ./base.gguf\nADAPTER ./adapter.gguf\n")


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    fails(run("import", tmp_path / "none", "-m", LLAMA), 1, "no file or folder")
    fails(run("import", tmp_path, "-m", LLAMA), 1, "holds no adapter")
    fails(run("import", GOLDEN / "qwen3-rslora", "-m", LLAMA), 1, "k_proj", "(32, 32)", "(16, 32)")
    fails(run("import", PLAIN, "-m", LLAMA, "--name", "a/b"), 1, "cannot be an adapter's name")
    pickle = tmp_path / "p"
    shutil.copytree(PLAIN, pickle)
    (pickle / "adapter_model.safetensors").rename(pickle / "adapter_model.bin")
    fails(run("import", pickle, "-m", LLAMA), 1, "adapter_model.bin is a pickle")
    fails(run("export", "nobody", "--to", "gguf", "--out", tmp_path / "x"), 1, "no adapter named 'nobody'")
    fails(run("export", PLAIN, "--to", "gguf", "--out", tmp_path / "x"), 2, "--model")
    fails(run("export", f"{PLAIN}:much", "--to", "gguf", "--out", tmp_path / "x"), 2, "'much'", "ADAPTER:SCALE")
    fails(run("export", PLAIN, "-m", LLAMA, "--to", "gguf", "--out", pickle), 1, "exists already", "--overwrite")
    assert not (tmp_path / "x").exists()
