"""Pages hold every entry, lead only where something is, and are the same each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from localllm.handbook.entries import entries
from localllm.handbook.pages import pages
from scripts.make_docs import write


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if name := found.get("id"):
            self.ids.append(name)
        if target := found.get("href"):
            self.targets.append(target)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_every_entry_is_on_a_page_and_every_link_leads_to_one() -> None:
    made = pages(entries())
    anchors = {(name, anchor) for name, text in made.items() for anchor in re.findall(r'<a id="([\w-]+)">', text)}
    assert {anchor for _, anchor in anchors} == {entry.id for entry in entries()}
    for text in made.values():
        for name, anchor in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", text):
            assert (name, anchor) in anchors


def test_the_page_of_html_is_whole() -> None:
    page = _Links()
    page.feed(pages(entries())["handbook.html"])
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)), "an anchor is there twice"
    assert set(page.targets) <= {f"#{name}" for name in page.ids}
    assert {entry.id for entry in entries()} <= set(page.ids)


def test_the_same_entries_make_the_same_pages_and_old_ones_go(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write(tmp_path)}
    (tmp_path / "gone.md").write_text("from an earlier run")
    (tmp_path / "kept.txt").write_text("not a page")
    second = {path.name: path.read_bytes() for path in write(tmp_path)}
    assert first == second
    assert {path.name for path in tmp_path.iterdir()} == {*first, "kept.txt"}
