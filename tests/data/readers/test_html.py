"""Web pages: what a reader sees, and nothing of what runs behind it."""

from __future__ import annotations

import pytest

from localllm.data.readers import html

PAGE = """<!DOCTYPE html><html><head><title>Bread &amp;
 Butter</title><style>p {}</style><script>run()</script></head><body>
<nav><a href=/>Home</a></nav><h1>The   <em>big</em> bakery</h1>
<p>It opens at seven,<br>closes at <b>n</b>oon &mdash; daily.</p>loose text<script>track()</script> goes on
<ul><li>rye<li>wheat<ul><li>white</ul></ul>
<table><tr><th>Day</th><th>Loaves</th></tr><tr><td>Monday</td><td><p>12 <i>or so</i></p></td></tr>
<tr><td></td><td>9</td></tr></table><pre>a  b
  c</pre><h2> </h2><p hidden>secret</p><h3>End</h3></body></html>"""
TEXT = """# The big bakery

It opens at seven,
closes at noon — daily.

loose text goes on

- rye
- wheat
- white

Day | Loaves
Monday | 12 or so
 | 9

a  b
  c

### End"""


def test_a_page_reads_as_it_looks() -> None:
    found = html.read(PAGE.encode())
    assert found.text == TEXT
    assert found.title == "Bread & Butter"
    assert found.encoding == "utf-8"


def test_a_page_laid_out_with_a_table_keeps_its_paragraphs() -> None:
    page = "<table><tr><td><p>One.</p><p>Two.</p></td><td><p>Three.</p><p>Four.</p></td></tr></table>"
    assert html.extract(page).text == "One.\n\nTwo.\n\nThree.\n\nFour."
    menu = "<table><tr><td><ul><li>a<li>b</ul></td><td>side</td></tr><tr><td></td><td>x</td></tr></table><h2>End</h2>"
    assert html.extract(menu).text == "- a\n- b\n\nside\n | x\n\n## End"


@pytest.mark.parametrize(
    "head, encoding",
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "shift_jis"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?><html>', "latin-1"),
        ('<meta charset="no-such-thing">', "utf-8"),
        ('<meta charset="utf-8">', "cp1252"),  # the page is wrong about itself
        ("", "utf-16"),
    ],
)
def test_the_encoding_is_what_the_page_says_if_that_is_possible(head: str, encoding: str) -> None:
    text = {"cp1251": "Съешь ещё булок", "shift_jis": "吾輩は猫である"}.get(encoding, "Le café est fermé à Noël")
    assert html.read(f"{head}<p>{text}</p>".encode(encoding)).text == text


@pytest.mark.parametrize("markup", ["", " ", "<", "<!--", "<html>", "<script>x", "&#0;", "<?xml?>", "\0"])
def test_nothing_is_no_text(markup: str) -> None:
    assert html.extract(markup).text in ("", "<", "�")


@pytest.mark.parametrize(
    "piece", ["<div>", "<b>", "<a ", "<!--", "<", "&", "<table><tr><td>", "<p>x", "<font><p>", '<a b="']
)
def test_a_hostile_page_is_read_in_linear_time(piece: str) -> None:
    markup = piece * 20_000  # a search that starts over at each would not end
    assert len(html.extract(markup).text) <= 2 * len(markup)


def test_what_is_nested_beyond_reason_is_said_to_be_left_out() -> None:
    assert html.extract("<div>" * 1500 + "deep").text == "deep"
    found = html.extract("<p>first</p>" + "<div>" * 5000 + "deep")
    assert found.text == "first"
    assert found.warnings == ("what is nested deeper than 2048 levels is left out",)
