"""The themes of the app. The contrast of the third is meant for weak eyes and bad screens."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="localllm-dark",
    primary="#7aa2f7",
    secondary="#9d7cd8",
    accent="#e0af68",
    warning="#e0af68",
    error="#f7768e",
    success="#9ece6a",
    foreground="#d5d9e8",
    background="#14161d",
    surface="#1b1e28",
    panel="#242836",
    dark=True,
)

LIGHT = Theme(
    name="localllm-light",
    primary="#2f5bb7",
    secondary="#7347a8",
    accent="#8a5a00",
    warning="#8a5a00",
    error="#b3263f",
    success="#3b7a1e",
    foreground="#1e2230",
    background="#fbfbfd",
    surface="#f0f1f6",
    panel="#e3e5ee",
    dark=False,
)

CONTRAST = Theme(
    name="localllm-contrast",
    primary="#ffff00",
    secondary="#00ffff",
    accent="#ffffff",
    warning="#ffff00",
    error="#ff9090",
    success="#80ff80",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
    variables={"text-muted": "#ffffff", "text-disabled": "#d0d0d0", "border": "#ffffff"},
)

THEMES = (DARK, LIGHT, CONTRAST)
