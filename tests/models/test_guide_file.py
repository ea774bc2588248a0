"""The built-in model's file: small, complete, of three tensor types only, and described truly by its card."""

import hashlib
import tomllib
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

MODELS = Path(__file__).resolve().parents[2] / "models"
CARD = tomllib.loads((MODELS / "guide.toml").read_text("utf-8"))
FILE = MODELS / CARD["file"]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n",
    'My order is #A-48213 (see "Invoice 77")… it cost $12.50,\n\n  thanks —\tZoë',
    '{"name": "Anna Kowalczyk", "order": "A-48213", "issue": null}',
    "日本語 🙂 naïve café\r\n\r\n I'LL they're 1234567890   ",
]


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(FILE)


def test_card_describes_the_file(reader: gguf.GGUFReader) -> None:
    assert CARD["name"] == "guide"
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == CARD["sha256"]
    assert FILE.stat().st_size <= 12_000_000
    assert CARD["parameters"] == sum(int(t.n_elements) for t in reader.tensors)
    assert CARD["context"] == reader.fields["llama.context_length"].contents()


def test_metadata(reader: gguf.GGUFReader) -> None:
    value = {name: field.contents() for name, field in reader.fields.items()}
    assert value["general.architecture"] == "llama"
    assert value["general.license"] == CARD["license"] == "MIT"
    assert (value["tokenizer.ggml.model"], value["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert value["tokenizer.ggml.add_bos_token"] is False
    tokens = value["tokenizer.ggml.tokens"]
    assert tokens[value["tokenizer.ggml.bos_token_id"]] == "<|endoftext|>"
    assert tokens[value["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert list(value["tokenizer.ggml.token_type"][:4]) == [3, 3, 3, 1]
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokens)
    assert "<|im_start|>" in value["tokenizer.chat_template"]


def test_tensors_are_of_types_that_training_repacks_exactly(reader: gguf.GGUFReader) -> None:
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    assert set(types.values()) == {"Q4_K", "Q8_0", "F32"}
    assert types["token_embd.weight"] == types["blk.0.attn_q.weight"] == types["blk.1.attn_output.weight"] == "Q8_0"
    assert all(np.isfinite(t.data).all() for t in reader.tensors if t.tensor_type.name == "F32")


@pytest.fixture(scope="module")
def reference(reader: gguf.GGUFReader) -> Tokenizer:
    """The tokenizer rebuilt from the file's own metadata."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens[:3])
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_tokenizes_as_trained(reference: Tokenizer, text: str) -> None:
    from llama_cpp import Llama

    model = Llama(str(FILE), vocab_only=True, verbose=False)
    assert model.tokenize(text.encode(), add_bos=False, special=True) == reference.encode(text).ids
