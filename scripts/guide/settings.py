"""The shape of the built-in model and the strings that every module shares."""

from dataclasses import dataclass

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
"""Token ids 0, 1 and 2; the last ends every message and the generation."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# The regex of llama.cpp for tokenizer.ggml.pre = "qwen2": one digit at a time, at most one mark before a word.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Shape:
    """A Llama with tied embeddings; heads times head size is the width."""

    vocab: int = 4096
    width: int = 256
    layers: int = 6
    heads: int = 4
    ffn: int = 768
    context: int = 2048
    rope_base: float = 1e7
    eps: float = 1e-5

    @property
    def head(self) -> int:
        """Size of one head."""
        return self.width // self.heads
