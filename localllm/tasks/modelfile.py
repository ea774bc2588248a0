"""Ollama's Modelfile: which instructions a model needs there.

Grammar: Ollama's Modelfile reference. One instruction a line; a value with line breaks stands in triple double quotes;
paths are relative to the file. Ollama knows the chat templates of well-known models by their text in the GGUF; where a
model's template writes what one of ours does, the same is said in TEMPLATE, in Go's template language, so that nothing
depends on being recognized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from localllm.engine.template import NAMED, ChatTemplate
from localllm.errors import TemplateError
from localllm.types import Message
from localllm.weights.gguf import GGUFFile, StringArray

PARAMETERS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
"""Sampling settings that have the same name and meaning there."""


@dataclass(frozen=True)
class Chat:
    """A conversation's form in Go's template language, and what ends an answer."""

    template: str
    stop: str


_KNOWN = {
    "chatml": Chat(
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
        "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n",
        "<|im_end|>",
    ),
    "llama3": Chat(
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}"
        "{{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>",
        "<|eot_id|>",
    ),
    "gemma": Chat(
        "{{ if .System }}<start_of_turn>user\n{{ .System }}<end_of_turn>\n{{ end }}"
        "{{ if .Prompt }}<start_of_turn>user\n{{ .Prompt }}<end_of_turn>\n{{ end }}"
        "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n",
        "<end_of_turn>",
    ),
}
_PROBES = (
    [Message("user", "How?")],
    [Message("user", "How?"), Message("assistant", "So."), Message("user", "Why?")],
)


def modelfile(base: str, adapter: str | None, chat: Chat | None, sampling: Mapping[str, float]) -> str:
    """The text. `base` and `adapter` are the names of files beside it."""
    lines = [f"FROM ./{base}"]
    if adapter:
        lines.append(f"ADAPTER ./{adapter}")
    if chat:
        lines += [f'TEMPLATE """{chat.template}"""', f'PARAMETER stop "{chat.stop}"']
    lines += [f"PARAMETER {key} {sampling[key]:g}" for key in PARAMETERS if key in sampling]
    return "\n".join(lines) + "\n"


def chat_of(base: GGUFFile) -> Chat | None:
    """The form that the model's own template writes, where it is one of the known ones."""
    source = base.metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        return None
    bos = _token(base, "tokenizer.ggml.bos_token_id")
    try:
        written = _written(source, bos)
        return next((chat for name, chat in _KNOWN.items() if _written(NAMED[name], bos) == written), None)
    except TemplateError:
        return None


def _written(source: str, bos: str) -> list[str]:
    """Some conversations as a template writes them; the token before them is for the program to add."""
    template = ChatTemplate(source, bos)
    return [template.render(probe).removeprefix(bos) for probe in _PROBES]


def _token(base: GGUFFile, key: str) -> str:
    number, tokens = base.metadata.get(key), base.metadata.get("tokenizer.ggml.tokens")
    if isinstance(number, int) and isinstance(tokens, StringArray) and 0 <= number < len(tokens):
        return tokens[number]
    return ""
