"""A tokenizer that can be read: one token a character, and a template with the habits that real ones have."""

from __future__ import annotations

import json
from collections.abc import Sequence

from localllm.data.examples import Encoder, TrainOn
from localllm.types import Example, Message

BOS, END = 0, 1


class Letters:
    """`<` opens a turn, `>` ends one. `forgetful` hides earlier answers; `tools` writes tools and their calls."""

    def __init__(self, forgetful: bool = False, tools: bool = True) -> None:
        self.forgetful, self.tools = forgetful, tools

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return ([BOS] if add_special else []) + [END if c == ">" and parse_special else ord(c) for c in text]

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        text = f"{{{tools}}}" if tools and self.tools else ""
        for i, m in enumerate(messages):
            hidden = self.forgetful and m.role == "assistant" and i < len(messages) - 1
            calls = json.loads(m.extra).get("tool_calls") if m.extra and self.tools else None
            text += f"<{m.role[0]}:{'' if hidden else m.content}{calls or ''}>\n"
        return self.tokenize(text + ("<a:" if add_generation_prompt else ""))


def encoder(
    template: bool = True, forgetful: bool = False, tools: bool = True, train_on: TrainOn = "assistant"
) -> Encoder:
    return Encoder(Letters(forgetful, tools), template, END, lambda token: token == END, train_on)


def spelled(tokens: Sequence[int]) -> str:
    return "".join({BOS: "^", END: ">"}.get(t) or chr(t) for t in tokens)


def learned(example: Example) -> str:
    return spelled([t for t, m in zip(example.tokens, example.mask, strict=True) if m])
