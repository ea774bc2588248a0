"""The handbook as pages: Markdown files, one for each section, and one page of HTML that needs nothing else.

The same entries make the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

from localllm.handbook.entries import Entry

_CODE = re.compile(r"`([^`]+)`")
_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
code { background: #8882; border-radius: 3px; padding: 0 .2em } .kind { opacity: .6 } nav li { margin: .1rem 0 }
:root { color-scheme: light dark }"""


def pages(given: Sequence[Entry]) -> dict[str, str]:
    """File name -> content: README.md lists all topics, each section has a file, handbook.html holds everything."""
    sections = {title: list(members) for title, members in groupby(given, key=lambda entry: entry.section)}
    files = {title: f"{_slug(title)}.md" for title in sections}
    where = {entry.id: files[entry.section] for entry in given}
    titles = {entry.id: entry.title for entry in given}
    made = {files[title]: _section(title, members, where, titles) for title, members in sections.items()}
    contents = [f"# Handbook\n\n{len(given)} entries; `localllm help QUESTION` searches them.\n"]
    for title, members in sections.items():
        links = "\n".join(f"- [{entry.title}]({files[title]}#{entry.id})" for entry in members)
        contents.append(f"## {title}\n\n{links}\n")
    return {"README.md": "\n".join(contents), **made, "handbook.html": _html(sections, titles)}


def _section(title: str, members: Sequence[Entry], where: dict[str, str], titles: dict[str, str]) -> str:
    parts = [f"# {title}\n"]
    for entry in members:
        see = ", ".join(f"[{titles[name]}]({where[name]}#{name})" for name in entry.see)
        parts.append(f'<a id="{entry.id}"></a>\n## {entry.title}\n\n{entry.body}\n')
        parts += [f"See also: {see}\n"] * bool(see)
    return "\n".join(parts)


def _html(sections: dict[str, list[Entry]], titles: dict[str, str]) -> str:
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>localllm: handbook</title>']
    parts += [f"<style>{_STYLE}</style></head><body>", "<h1>Handbook</h1>", "<nav><ul>"]
    for title in sections:
        parts.append(f'<li><a href="#section-{_slug(title)}">{escape(title)}</a></li>')
    parts.append("</ul></nav>")
    for title, members in sections.items():
        parts.append(f'<h2 id="section-{_slug(title)}">{escape(title)}</h2>')
        for entry in members:
            body = _CODE.sub(r"<code>\1</code>", escape(entry.body, quote=False))
            see = ", ".join(f'<a href="#{name}">{escape(titles[name])}</a>' for name in entry.see)
            parts.append(f'<h3 id="{entry.id}">{escape(entry.title)} <span class="kind">{entry.kind}</span></h3>')
            parts.append(f"<p>{body}</p>" + f"\n<p>See also: {see}</p>" * bool(see))
    return "\n".join([*parts, "</body></html>", ""])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
