"""The tokenizer and the chat template of an MLX folder: tokenizer.json through `tokenizers`, nothing of it run."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localllm.errors import InvalidModelError, UsageError

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_MAX_BYTES = 256 << 20
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end an answer in every model that has them."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class FolderVocab:
    """The same calls as `Vocab`, which is llama.cpp's."""

    pointer = None

    def __init__(self, folder: Path, size: int = 0) -> None:
        """`size`: rows of the model's output, which may be more than there are tokens. Raises InvalidModelError."""
        from tokenizers import Tokenizer

        path = folder / TOKENIZER
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise InvalidModelError(f"{folder} has no usable {TOKENIZER}.", "Copy or download the folder again.")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise InvalidModelError(f"{path} is no tokenizer ({error!s:.120}).", "Download it again.") from error
        self.settings = read_settings(folder / SETTINGS)
        self.size = size or self._tokenizer.get_vocab_size()
        self._bytes = _byte_decoder() if _is_byte_level(path) else None
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}
        self._added = set(added)
        self.bos_token, self.eos_token = (_written(self.settings.get(f"{name}_token")) for name in ("bos", "eos"))
        self._begins = self._tokenizer.encode("").ids[:1]
        self._ends = self._ending(folder)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; see `Engine.tokenize`."""
        self._tokenizer.encode_special_tokens = not parse_special
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(clean, add_special_tokens=add_special).ids)

    def tokenize_chat(self, rendered: str) -> list[int]:
        """Token ids of a rendered conversation; BOS is added where the model wants one and the template wrote none."""
        tokens = self.tokenize(rendered, add_special=False)
        bos = self._tokenizer.token_to_id(self.bos_token) if self.bos_token else None
        if bos is not None and self._begins == [bos] and tokens[:1] != [bos]:
            return [bos, *tokens]
        return tokens

    def piece(self, token: int) -> bytes:
        """The bytes of one token, which may be a part of a character; control tokens are empty. Raises UsageError."""
        if not 0 <= token < self.size:
            message = f"{token} is no token of this model, which has {self.size}."
            raise UsageError(message, f"Token ids go from 0 to {self.size - 1}.")
        text = self._tokenizer.id_to_token(token)
        if text is None or token in self._special:
            return b""
        if token in self._added:
            return str(text).encode()
        if self._bytes is not None:
            return bytes(self._bytes[c] for c in text if c in self._bytes)
        if found := _BYTE.fullmatch(text):
            return bytes([int(found[1], 16)])
        return str(text).replace("\u2581", " ").encode()

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, bytes that are not UTF-8 replaced."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(b"".join(map(self.piece, tokens)), True)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return token in self._ends

    def _ending(self, folder: Path) -> set[int]:
        """What the folder's settings name, and the control tokens that end an answer everywhere."""
        found: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            said = read_settings(folder / name).get("eos_token_id")
            found |= {number for number in (said if isinstance(said, list) else [said]) if isinstance(number, int)}
        named = [self._tokenizer.token_to_id(text) for text in (self.eos_token, *_ENDS) if text]
        return found | {number for number in named if number is not None}


def chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """Source of the folder's chat template: a file of its own, or what the tokenizer's settings hold."""
    path = folder / "chat_template.jinja"
    try:
        if path.is_file() and path.stat().st_size < 1 << 20:
            return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    said = settings.get("chat_template") or read_settings(folder / "chat_template.json").get("chat_template")
    if isinstance(said, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in said if isinstance(entry, dict)}
        said = named.get("default")
    return said if isinstance(said, str) and said.strip() else None


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object beside the weights; empty where there is none that can be read."""
    try:
        if path.stat().st_size > 64 << 20:
            return {}
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _written(token: Any) -> str:
    """A control token as settings write it: text, or an object with it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _is_byte_level(path: Path) -> bool:
    said = read_settings(path)
    stages = [said.get("decoder") or {}, *((said.get("decoder") or {}).get("decoders") or [])]
    return any(isinstance(stage, dict) and stage.get("type") == "ByteLevel" for stage in stages)


def _byte_decoder() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as themselves, the others as characters from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
