"""What stands on a code block can be read in every theme."""

from __future__ import annotations

import pytest
from rich.color import Color

from localllm.tui.app import LocalLLMApp
from localllm.tui.theme import THEMES
from localllm.tui.widgets.flow import MarkdownFlow
from tests.tui.support import opener, ready, say, scripted

LEAST = 4.5
"""Between text and what is behind it, by WCAG's AA."""


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
async def test_the_bar_of_a_code_block_has_contrast(theme: str):
    app = LocalLLMApp(opener(scripted("```python\nx = 1\n```\n")))
    app.theme = theme
    async with app.run_test(size=(60, 20)) as pilot:
        await ready(pilot)
        await say(pilot, "hi")
        bar = {s.text: s.style for s in app.screen.query_one(MarkdownFlow).render_line(0) if s.text.strip()}
    assert set(bar) == {"python", "copy"}
    for style in bar.values():
        assert style is not None
        assert style.color is not None
        assert style.bgcolor is not None
        darker, lighter = sorted(map(luminance, (style.color, style.bgcolor)))
        assert (lighter + 0.05) / (darker + 0.05) >= LEAST


def luminance(color: Color) -> float:
    """Relative, of sRGB, by WCAG."""
    parts = [part / 255 for part in color.get_truecolor()]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
