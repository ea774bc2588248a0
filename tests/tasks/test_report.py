"""The page: everything in it, nothing fetched, nothing run, whatever rows and models say."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from localllm.data.lengths import measure
from localllm.errors import LocalLLMError, StorageError, UsageError
from localllm.evaluate.answers import Measure
from localllm.evaluate.perplexity import Change, Loss, RowLoss
from localllm.evaluate.verdict import Scored, judge
from localllm.tasks.curves import HEIGHT, WIDTH, _linear, _ticks, loss_svg, points
from localllm.tasks.evaluating import Answers, EvaluateResult, Sample
from localllm.tasks.report import check_target, write_report
from localllm.types import Example

EVIL = '<script>alert("x")</script><img src=http://evil.example/a.png onerror=a()>\x1b[31m\u202e{{ 7*7 }}'
MANIFEST = {
    "created": "2026-01-02T03:04:05+00:00", "base": {"name": "guide", "sha256": "ab" * 32},
    "training": {"data": EVIL, "format": "chat", "rows": 1234, "held_out": 5, "rank": 16, "learning_rate": 8e-4},
    "verify": {"passed": True, "top1": 1.0, "kl": 4.6e-5, "mlx": "0.32.4"},
}  # fmt: skip


def change(before: float, after: float) -> Change:
    return Change(Loss((RowLoss(10 * before, 10),)), Loss((RowLoss(10 * after, 10),)))


def evaluated(path: Path, text: str = "a", after: float = 1.0) -> EvaluateResult:
    scored = Scored("exact match", (0.0, 0.0), (1.0, 1.0))
    rows, general, other = change(1.5, 0.5), change(1.0, after), change(2.0, 2.0)
    verdict = judge(rows, scored, {"general text": general, "rows of other topics": other})
    answers = Answers(Measure("exact", "nine of ten answers have at most 3 words"), (scored,))
    samples = (Sample(3, text, text, text, "another"),)
    return EvaluateResult(text, path, "guide", "held-out", rows, answers, general, other, samples, verdict, 100, 2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's folder with a run of forty steps."""
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "adapter.gguf").write_bytes(b"abc")
    steps = [{"event": "step", "step": i, "loss": 2.0 / i} for i in range(1, 41)]
    validated = [{"event": "evaluated", "step": s, "loss": 1.0 / (s + 1)} for s in (0, 20, 40)]
    (made / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*steps, *validated])) + "\n{broken\n[1]\n")
    return made


class Page(HTMLParser):
    """Tags, attributes and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.text += " " * (tag in ("td", "th"))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_that_a_row_says_becomes_markup(folder: Path) -> None:
    target = folder / "report.html"
    write_report(target, folder, MANIFEST, evaluated(folder / "adapter.gguf", EVIL))
    page, source = Page(target), target.read_text("utf-8")
    assert not page.tags & {"script", "img", "link", "iframe", "object", "form", "a", "base"}
    assert not [a for a in page.attributes if a[0].startswith("on") or a[0] in ("src", "href", "style")]
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source
    assert page.text.count('<script>alert("x")</script>') >= 6  # said, not run: name, prompt, expected, base, file
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_everything_is_on_the_page(folder: Path) -> None:
    target = folder / "report.html"
    lengths = {"training rows": measure([Example((1, 2, 3), (False, True, True))])}
    write_report(target, folder, MANIFEST, evaluated(folder / "adapter.gguf", "a sample", after=1.5), lengths)
    text = " ".join(Page(target).text.split())
    for part in (
        "a sample: what changed", "Better: loss 1.500 → 0.500 (−67%)", "Forgot: perplexity on general text",
        "1.5000 0.5000 −1.0000", "exact match 0.0% 100.0% +100 points", "+64.9%", "Base – as expected", "another",
        "learning rate 0.0008", "rows learned 1,234", "training rows, tokens 3, of which 2 count", "passed yes",
        "mean KL, llama.cpp‖MLX 4.6e-05", "same top token 100.0%", "ab" * 32,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # SHA-256 of abc
        "made 2026-01-02",
    ):  # fmt: skip
        assert part in text, part
    assert 'class="verdict bad"' in target.read_text("utf-8")
    assert [p.name for p in folder.iterdir() if p.name.endswith(".tmp")] == []


def test_a_bare_adapter_has_a_shorter_page(folder: Path) -> None:
    bare, target = folder / "adapter.gguf", folder / "bare.htm"
    write_report(target, None, {}, evaluated(bare))
    page = Page(target)
    assert "svg" not in page.tags
    assert "Training" not in page.text
    assert "ba7816bf" in page.text


def test_the_curves_lie_inside_the_picture(folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:43]]
    train, validation = points(events, "step"), points(events, "evaluated")
    assert (len(train), len(validation)) == (40, 3)
    svg = ElementTree.fromstring(loss_svg(train, validation))
    lines = {line.get("class"): line.get("points", "") for line in svg.iter("polyline")}
    assert lines.keys() == {"train", "validation"}
    for line in lines.values():
        pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in pairs)
        assert [y for _, y in pairs] == sorted(y for _, y in pairs)  # the losses fall, and y grows downwards
    assert len(list(svg.iter("circle"))) == 3
    assert loss_svg([], []) == loss_svg([(1, 1.0)], []) == ""
    assert points([{"event": "step", "step": 1, "loss": float("nan")}, {"event": "step"}], "step") == []
    thousands = [(float(i), 1.0 + i % 3) for i in range(5000)]
    assert len(loss_svg(thousands, [])) < 20_000
    ElementTree.fromstring(loss_svg([(0, 1.0), (0, 1.0)], []))


@pytest.mark.parametrize("low, high, log", [(0.9, 1.5, False), (0.0174, 1.55, True), (1e-5, 12.0, True), (3, 3, False)])
def test_ticks_are_round_and_cover_the_losses(low: float, high: float, log: bool) -> None:
    ticks, found = _ticks(low, high)
    assert found is log
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert ticks == sorted(set(ticks))
    assert all(float(f"{t:.1g}") == t or not log for t in ticks)
    assert 4 <= len(_linear(0, high)) <= 8


def test_a_place_that_cannot_be_written_is_found_first(tmp_path: Path, folder: Path) -> None:
    check_target(tmp_path / "r.html")
    (tmp_path / "d.html").mkdir()
    cases: list[tuple[Path, type[LocalLLMError]]] = [
        (tmp_path / "rows.jsonl", UsageError), (tmp_path / "none" / "r.html", StorageError),
        (tmp_path / "d.html", StorageError),
    ]  # fmt: skip
    for path, kind in cases:
        with pytest.raises(kind, match=path.name):
            check_target(path)
    with pytest.raises(StorageError, match="Cannot write"):
        write_report(tmp_path / "d.html", folder, {}, evaluated(folder / "adapter.gguf"))
