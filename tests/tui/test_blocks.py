"""A reply's Markdown in blocks and lines: the same however it came, and nothing of it lost."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from localllm.tui.app import LocalLLMApp
from localllm.tui.blocks import Block, Splitter, blocks
from localllm.tui.drawing import BLANK, Drawer, Line
from localllm.tui.widgets.flow import MarkdownFlow
from localllm.tui.wrapping import breaks
from tests.tui.support import StreamEngine, opener, ready, say, shown

KINDS = "paragraph sentences heading list numbers nested code loose quote table hr lines wide setext links".split()  # noqa: SIM905


def part_of(draw: random.Random, kind: str, size: int) -> str:
    """Something at the top level, about `size` words long."""
    words = [f"{draw.choice(['w', 'Wort', 'a', 'x_y', '*em*', '`c`', '**b** '])}{i}" for i in range(max(size, 2))]
    line = " ".join(words)
    rows = [words[i : i + 5] for i in range(0, len(words), 5)]
    if kind == "code":
        body = "".join(
            f"{'    ' * draw.randrange(2)}x = '{' '.join(row)}'\n{draw.choice(['', '', chr(10)])}" for row in rows
        )
        return f"```{draw.choice(['python', 'sh', '', 'nonsense'])}\n{body}```\n\n"
    if kind == "table":
        body = "".join(f"| {' | '.join(row[:2] + ['-'] * (2 - len(row)))} |\n" for row in rows)
        return f"| head | second |\n|---|:-:|\n{body}\n"
    return {
        "paragraph": f"{line}\n\n",
        "sentences": ". ".join(" ".join(row) for row in rows) + ".\n\n",
        "heading": f"## {line[:50]}\n\n",
        "setext": f"{line[:50]}\n---\n\n",
        "list": "".join(f"- {' '.join(row)}\n" for row in rows) + "\n",
        "loose": "".join(f"* {' '.join(row)}\n\n  more of it\n\n" for row in rows),
        "numbers": "".join(f"{i}. {' '.join(row)}\n" for i, row in enumerate(rows, draw.randrange(1, 12))) + "\n",
        "nested": "".join(f"- {row[0]}\n   - {' '.join(row)}\n\n     ```sh\n     ls\n     ```\n" for row in rows)
        + "\n",
        "quote": "".join(f"> {' '.join(row)}\n{draw.choice(['', '>' + chr(10)])}" for row in rows) + "\n",
        "hr": "---\n\n",
        "lines": "\n".join(" ".join(row) for row in rows) + "\n\n",
        "wide": "灯台は岬の先にあり、夜になると光る。" * max(1, size // 8) + "\n\n",
        "links": f"[a](http://b.example/{size}) and [{words[0]}][1]\n\n[1]: http://c.example\n\n",
    }[kind]


def text_of(seed: int, length: int = 6000) -> str:
    draw = random.Random(seed)
    text = ""
    while len(text) < length:
        text += part_of(draw, draw.choice(KINDS), draw.choice([1, 5, 20, 60, 400]))
    return text.rstrip("\n") if draw.random() < 0.5 else text


def chunks(text: str, draw: random.Random, longest: int = 120) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = at + draw.randint(1, longest)
        yield text[at:end]
        at = end


def drawn(found: list[Block], width: int = 60) -> list[Line]:
    drawer = Drawer(width)
    lines: list[Line] = []
    for block in found:
        lines += [*drawer.draw(block), BLANK]
    return lines


def looks(lines: list[Line]) -> list[tuple[str, list[tuple[int, int, str]], str, str | None]]:
    return [
        (x.content.plain, [(s.start, s.end, str(s.style)) for s in x.content.spans], x.under, x.joint) for x in lines
    ]


@pytest.mark.parametrize("seed", range(8))
def test_blocks_do_not_depend_on_the_pieces(seed: int):
    text, draw = text_of(seed), random.Random(seed)
    splitter = Splitter()
    found = [block for chunk in chunks(text, draw) for block in splitter.feed(chunk)]
    assert looks(drawn(found + splitter.open)) == looks(drawn(blocks(text)))


@pytest.mark.parametrize("seed", range(4))
def test_a_block_that_is_over_stays_as_it_is(seed: int):
    text = text_of(seed, 2000)
    whole = [block.tokens[0].type for block in blocks(text)]
    splitter = Splitter()
    over: list[Block] = []
    for chunk in chunks(text, random.Random(seed), 20):
        over += splitter.feed(chunk)
        assert [block.tokens[0].type for block in over] == whole[: len(over)]


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost(seed: int):
    text = text_of(seed)
    said = ""
    for token in MarkdownIt("gfm-like", {"html": False, "linkify": False}).disable("reference").parse(text):
        for child in token.children or []:
            said += child.content + str(child.attrs.get("href", ""))
        said += token.content if token.type in ("fence", "code_block") else ""
    seen = "".join(line.content.plain for line in drawn(blocks(text), 500) if line.under != "code-bar")
    numbers = [c for c in letters(seen) if not c.isdigit()]
    assert sorted(numbers) == sorted(c for c in letters(said) if not c.isdigit())


@pytest.mark.parametrize(
    "kind", ["paragraph", "sentences", "list", "numbers", "code", "table", "quote", "lines", "wide"]
)
def test_a_block_that_does_not_end_is_cut(kind: str):
    text = part_of(random.Random(3), kind, 4000).rstrip("\n").removesuffix("```")
    splitter = Splitter()
    splitter.feed(text)
    assert len(splitter._rest.text) < 4000
    found = blocks(text)
    assert len(found) > 5
    assert all(block.continues for block in found[1:])
    assert max(len(Drawer(80).draw(block)) for block in found) < 80


def test_a_cut_list_counts_on_and_a_cut_table_keeps_its_columns():
    numbers = blocks("".join(f"1. {'word ' * 9}\n" for _ in range(90)))
    firsts = [line.content.plain.split(".")[0].strip() for line in drawn(numbers, 80) if "." in line.content.plain]
    assert firsts == [str(n) for n in range(1, 91)]
    table = blocks("| a | b |\n|---|---|\n" + "".join(f"| {'x' * (i // 9)} | y |\n" for i in range(100)))
    lines = [line.content.plain for line in drawn(table, 40) if line.content.plain]
    assert len(set(map(len, lines))) == 1
    assert sum(line.startswith("└") for line in lines) == 1


@pytest.mark.parametrize("width", [1, 7, 30, 80])
@pytest.mark.parametrize(
    "text",
    ["one two  three", "longerthanthewidthofaline " * 3, "灯台は、岬の先。" * 9, "a🌱b " * 30, "  x" * 9],
)
def test_lines_break_within_the_width(text: str, width: int):
    offsets = breaks(text, width)
    assert offsets == sorted(set(offsets))
    parts = [text[a:b].rstrip() for a, b in zip([0, *offsets], [*offsets, len(text)], strict=True)]
    assert all(cell_len(part) <= max(width, 2) for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("seed", range(2))
async def test_a_streamed_reply_looks_as_one_that_is_opened(seed: int):
    text = text_of(seed, 5000)
    pieces = list(chunks(text, random.Random(seed)))
    app = LocalLLMApp(opener(StreamEngine(pieces=pieces, n_ctx=1 << 20)))
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await say(pilot, "go")
        streamed = app.screen.query_one(MarkdownFlow)
        pictures = []
        for _ in range(2):
            await pilot.pause()
            pictures.append((looks(streamed.lines), shown(app)))
            streamed.reset(text)
        assert pictures[0] == pictures[1]
        assert looks(MarkdownFlow(text).drawn_at(streamed.size.width)) == pictures[0][0]
