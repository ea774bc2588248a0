"""What brings llama.cpp down is refused by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localllm.errors import InvalidModelError
from localllm.weights.gguf import read_header
from scripts.fuzz.parts import Parts
from tests.weights import oracle
from tests.weights.damage import f32, numbers, rename, seeds, set_key, set_tensor, text, texts, tokens, u32

Change = Callable[[Parts], Parts]
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parts]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def read(parts: Parts, folder: Path) -> None:
    path = folder / "case.gguf"
    path.write_bytes(parts.assembled)
    read_header(path)


def key(name: str, value: tuple[int, bytes] | None) -> Change:
    return lambda parts: set_key(parts, name, value)


def tensor(name: str, dims: tuple[int, ...] | None = None, kind: int | None = None) -> Change:
    return lambda parts: set_tensor(parts, name, dims, kind)


def without(parts: Parts, *names: str) -> Parts:
    for name in names:
        parts = set_key(parts, name, None)
    return parts


def vocabulary(change: Callable[[list[bytes]], object]) -> Change:
    """Changes the list of tokens in place."""

    def changed(parts: Parts) -> Parts:
        words = tokens(parts)
        before = len(words)
        change(words)
        if len(words) > before:
            parts = set_key(parts, "tokenizer.ggml.token_type", None)
        return set_key(parts, "tokenizer.ggml.tokens", texts(words))

    return changed


def test_valid_files_pass(valid: dict[str, Parts], tmp_path: Path) -> None:
    for parts in valid.values():
        read(parts, tmp_path)


def test_converted_models_and_adapters_pass(guide_path: Path) -> None:
    files = [*TESTS.rglob("*.gguf"), guide_path]
    assert len(files) > 15
    for path in files:
        read_header(path)


def test_shared_models_pass() -> None:
    files = list(oracle.shared().rglob("*.gguf"))
    assert len(files) > 10
    for path in files:
        read_header(path)


HYPERPARAMETERS = {
    "no layers": ("llama", key("llama.block_count", u32(0)), "block_count is 0"),
    "layers beyond llama.cpp's arrays": ("llama", key("llama.block_count", u32(513)), "block_count is 513"),
    "layers as text": ("llama", key("llama.block_count", text("1")), "block_count is not a whole number"),
    "layers as array": ("llama", key("llama.block_count", numbers(4, [1])), "block_count is not a whole number"),
    "more draft layers than layers": ("llama", key("llama.nextn_predict_layers", u32(1)), "nextn_predict_layers"),
    "no context": ("llama", key("llama.context_length", u32(0)), "context_length is 0"),
    "context beyond int32": ("llama", key("llama.context_length", u32(1 << 31)), "context_length is 2147483648"),
    "no width": ("llama", key("llama.embedding_length", u32(0)), "embedding_length is 0"),
    "width missing": ("llama", key("llama.embedding_length", None), "embedding_length is 0"),
    "huge output width": ("llama", key("llama.embedding_length_out", u32(1 << 31)), "embedding_length_out"),
    "huge vocabulary without tokens": ("llama", key("llama.vocab_size", u32((1 << 32) - 1)), "vocab_size"),
    "no heads": ("llama", key("llama.attention.head_count", u32(0)), "head_count is missing or 0"),
    "heads missing": ("olmo2", key("olmo2.attention.head_count", None), "head_count is missing or 0"),
    "no heads and a key of models without": (
        "llama",
        lambda p: set_key(set_key(p, "llama.attention.head_count", u32(0)), "llama.ssm.group_count", u32(1)),
        "head_count is missing or 0",
    ),
    "more heads than numbers": ("llama", key("llama.attention.head_count", u32(64)), "key_length is 0"),
    "heads for other layers": ("llama", key("llama.attention.head_count", numbers(4, [2, 2])), "each of 1 layers"),
    "heads as floats": ("llama", key("llama.attention.head_count", numbers(6, [2.0])), "each of 1 layers"),
    "negative heads": ("llama", key("llama.attention.head_count", numbers(5, [-2])), "beyond 0 to"),
    "layers of different heads": (
        "llama-deep",
        key("llama.attention.head_count_kv", numbers(5, [1, 2])),
        "layers of a llama model cannot differ",
    ),
    "a layer without keys": ("llama-deep", key("llama.attention.head_count_kv", numbers(5, [1, 0])), "cannot differ"),
    "heads that cannot share": ("llama", key("llama.attention.head_count_kv", u32(3)), "cannot share 3"),
    "values unlike keys": ("llama", key("llama.attention.value_length", u32(8)), "keys have 16 .* values 8"),
    "nothing rotated": ("gemma3", key("gemma3.rope.dimension_count", u32(0)), "rope.dimension_count is 0"),
    "more rotated than there is": (
        "phi3",
        key("phi3.rope.dimension_count", u32(32)),
        "is 32 for attention heads of 16",
    ),
    "an odd number rotated": ("phi3", key("phi3.rope.dimension_count", u32(7)), "is 7 for"),
    "half rotated": ("olmo2", key("olmo2.rope.dimension_count", u32(8)), "is 8 for attention heads of 16"),
    "unknown rope scaling": ("llama", key("llama.rope.scaling.type", text("wild")), "rope.scaling.type is 'wild'"),
    "NaN epsilon": ("llama", key("llama.attention.layer_norm_rms_epsilon", f32(float("nan"))), "epsilon is nan"),
    "negative epsilon": ("llama", key("llama.attention.layer_norm_rms_epsilon", f32(-1.0)), "epsilon is -1"),
    "huge window": ("gemma2", key("gemma2.attention.sliding_window", u32((1 << 31) - 1)), "sliding_window"),
    "a window for no layer": (
        "gemma3",
        key("gemma3.attention.sliding_window_pattern", numbers(7, [False, True])),
        "no layer to the window",
    ),
    "every layer without a window": ("gemma3", key("gemma3.attention.sliding_window_pattern", u32(1)), "no layer to"),
    "too many experts": ("qwen3moe", key("qwen3moe.expert_count", u32(1025)), "expert_count is 1025"),
    "experts of none": ("qwen3moe", key("qwen3moe.expert_count", None), "expert_used_count is 1 of 0"),
    "none of the experts": ("qwen3moe", key("qwen3moe.expert_used_count", u32(0)), "expert_used_count is 0 of 2"),
    "more experts than there are": ("qwen3moe", key("qwen3moe.expert_used_count", u32(3)), "is 3 of 2"),
    "as many groups as experts": ("qwen3moe", key("qwen3moe.expert_group_count", u32(2)), "expert_group_count is 2"),
    "architecture without experts": ("llama", lambda p: rename(p, "smallthinker"), "expert_count is 0"),
    "groups of a single expert": (
        "llama",
        lambda p: set_key(rename(p, "hunyuan-dense"), "hunyuan-dense.expert_group_count", u32(2)),
        "expert_group_count is 2",
    ),
    "architecture without sections": ("llama", lambda p: rename(p, "qwen2vl"), "dimension_sections is not four"),
    "architecture without a voice": ("llama", lambda p: rename(p, "bert"), "is a bert model, which writes no text"),
    "architecture with a zero byte": (
        "llama",
        key("general.architecture", text("llama\0")),
        r"architecture is 'llama\\x00'",
    ),
    "architecture that is a sentence": ("llama", key("general.architecture", text("\33[2J " * 99)), "architecture is"),
    "architecture as number": ("llama", key("general.architecture", u32(1)), "general.architecture is not a text"),
    "one part of several": ("llama", key("split.count", (2, b"\2\0")), "one of 2 parts"),
}
VOCABULARIES = {
    "tokens that are numbers": (
        "llama",
        key("tokenizer.ggml.tokens", numbers(4, range(269))),
        "tokens is not an array",
    ),
    "tokens that are one text": ("llama", key("tokenizer.ggml.tokens", text("a")), "tokens is not an array"),
    "scores that are doubles": (
        "llama",
        key("tokenizer.ggml.scores", numbers(12, [0] * 269)),
        "scores is not an array",
    ),
    "kinds that are bytes": ("llama", key("tokenizer.ggml.token_type", numbers(0, [1] * 269)), "token_type is not"),
    "merges that are numbers": ("qwen2", key("tokenizer.ggml.merges", numbers(4, [1])), "merges is not an array"),
    "too few scores": ("llama", key("tokenizer.ggml.scores", numbers(6, [0] * 268)), "268 entries for 269 tokens"),
    "too few kinds": ("llama", key("tokenizer.ggml.token_type", numbers(5, [1])), "1 entries for 269 tokens"),
    "no tokens": ("llama", key("tokenizer.ggml.tokens", texts([])), "vocabulary of 0 tokens"),
    "too many tokens": (
        "qwen2",
        key("tokenizer.ggml.tokens", texts(b"%d" % i for i in range(400_001))),
        "vocabulary of 400001 tokens",
    ),
    "a token twice": ("qwen2", vocabulary(lambda words: words.__setitem__(5, words[6])), "has '.' twice"),
    "a token twice up to a zero byte": ("qwen2", vocabulary(lambda words: words.append(b"th\0x")), "has 'th' twice"),
    "a token like the name of an empty one": (
        "qwen2",
        vocabulary(lambda words: words.extend([b"", b"[EMPTY_262]"])),
        r"has '\[EMPTY_262\]' twice",
    ),
    "a byte token that is negative": ("llama", vocabulary(lambda w: w.__setitem__(3, b"<0x-1>")), "token '<0x-1>'"),
    "a byte token that is too short": (
        "llama",
        vocabulary(lambda words: words.__setitem__(3, b"<0")),
        "byte token '<0'",
    ),
    "no token for a byte": (
        "llama",
        lambda parts: set_key(
            vocabulary(lambda words: words.__setitem__(3 + 0xE6, b"other"))(parts), "tokenizer.ggml.token_type", None
        ),
        "no token for the byte 0xE6",
    ),
    "no tokenizer": ("llama", key("tokenizer.ggml.model", text("none")), "tokenizer.ggml.model is 'none'"),
    "a tokenizer for embeddings": ("llama", key("tokenizer.ggml.model", text("bert")), "writes no text"),
    "RWKV without single bytes": ("llama", key("tokenizer.ggml.model", text("rwkv")), "no token for the byte b'<'"),
    "a beginning outside": (
        "llama",
        key("tokenizer.ggml.bos_token_id", u32(269)),
        "bos_token_id is 269 in a vocabulary",
    ),
    "an end outside": ("llama", key("tokenizer.ggml.eos_token_id", u32(9999)), "eos_token_id is 9999"),
    "a beginning added to eleven tokens": (
        "qwen2",
        lambda parts: without(
            set_key(parts, "tokenizer.ggml.tokens", texts(b"abcdefghijk"[i : i + 1] for i in range(11))),
            "tokenizer.ggml.bos_token_id",
            "tokenizer.ggml.add_bos_token",
        ),
        "bos_token_id does not name",
    ),
    "a beginning added against the file's word": (
        "qwen2",
        lambda parts: without(set_key(parts, "tokenizer.ggml.model", text("gemma4")), "tokenizer.ggml.bos_token_id"),
        "bos_token_id does not name",
    ),
    "a beginning added that is not named": (
        "llama",
        lambda parts: set_key(
            set_key(parts, "tokenizer.ggml.model", text("gemma4")), "tokenizer.ggml.bos_token_id", None
        ),
        "bos_token_id does not name",
    ),
}
TENSORS = {
    "a norm in 16 bits": ("llama", tensor("output_norm.weight", kind=1), "'output_norm.weight' has one dimension"),
    "a bias in blocks": ("qwen2", tensor("blk.0.attn_q.bias", kind=8), "attn_q.bias' has one dimension"),
    "a matrix of integers": ("llama", tensor("blk.0.attn_q.weight", kind=27), "type I64"),
    "a matrix of doubles": ("llama", tensor("token_embd.weight", kind=28), "type F64"),
    "a matrix of activations": ("llama", tensor("blk.0.attn_q.weight", kind=9), "type Q8_1"),
    "no attention": ("phi3", tensor("blk.0.attn_qkv.weight", ()), "no tensor 'blk.0.attn_q.weight'"),
}
LORA = "blk.0.attn_q.weight.lora_"
ADAPTERS = {
    "alpha as double": ("adapter", key("adapter.lora.alpha", (12, bytes(8))), "alpha is not a 32-bit float"),
    "kind as number": ("adapter", key("adapter.type", u32(1)), "adapter.type is not a text"),
    "architecture as number": ("adapter", key("general.architecture", u32(1)), "architecture is not a text"),
    "a factor of one dimension": ("adapter", tensor(LORA + "b", (4,)), "lora_b' has 1 dimensions"),
    "a factor of three dimensions": (
        "adapter",
        tensor(LORA + "b", (4, 32, 2)),
        "lora_a' and its counterpart do not fit",
    ),
    "a factor alone": ("adapter", tensor(LORA + "a", ()), "lora_b' has no counterpart"),
    "factors of two ranks": ("adapter", tensor(LORA + "b", (5, 32)), "do not fit"),
    "a factor of integers": ("adapter", tensor(LORA + "b", kind=26), "type I32"),
}
CASES = {**HYPERPARAMETERS, **VOCABULARIES, **TENSORS, **{f"adapter: {name}": case for name, case in ADAPTERS.items()}}


@pytest.mark.parametrize("name", CASES)
def test_refuses(name: str, valid: dict[str, Parts], tmp_path: Path) -> None:
    seed, change, problem = CASES[name]
    with pytest.raises(InvalidModelError, match=problem):
        read(change(valid[seed]), tmp_path)


ALLOWED: dict[str, tuple[str, Change]] = {
    "as many layers as llama.cpp takes": ("llama", key("llama.block_count", u32(512))),
    "heads for each layer": ("llama", key("llama.attention.head_count", numbers(4, [2]))),
    "layers of different heads where they may differ": (
        "llama-deep",
        lambda p: rename(set_key(p, "llama.attention.head_count_kv", numbers(5, [1, 2])), "openelm"),
    ),
    "a context of ten million tokens": ("llama", key("llama.context_length", u32(10_485_760))),
    "an attention window of nothing": ("phi3", key("phi3.attention.sliding_window", u32(0))),
    "a window in every sixth layer": ("gemma3", key("gemma3.attention.sliding_window_pattern", u32(6))),
    "a pattern without a window": (
        "phi3",
        lambda p: set_key(
            set_key(p, "phi3.attention.sliding_window", u32(0)),
            "phi3.attention.sliding_window_pattern",
            numbers(7, [False]),
        ),
    ),
    "part of the heads rotated": ("phi3", key("phi3.rope.dimension_count", u32(8))),
    "no heads between other layers": (
        "llama",
        lambda p: rename(set_key(p, "llama.attention.head_count", u32(0)), "mamba"),
    ),
    "identifiers that say none": ("llama", key("tokenizer.ggml.eos_token_id", u32((1 << 32) - 1))),
    "more scores than tokens": ("llama", key("tokenizer.ggml.scores", numbers(6, [0] * 300))),
    "scores that are integers": ("llama", key("tokenizer.ggml.scores", numbers(5, [0] * 269))),
    "an empty token": ("qwen2", vocabulary(lambda words: words.append(b""))),
    "tokens that are not UTF-8": ("qwen2", vocabulary(lambda words: words.extend([b"\xff", b"\xfe"]))),
    "no token for a byte that is never in text": (
        "llama",
        lambda p: set_key(
            vocabulary(lambda words: words.__setitem__(3 + 0xFF, b"x"))(p), "tokenizer.ggml.token_type", None
        ),
    ),
    "an architecture of tomorrow": ("llama", lambda p: rename(p, "llama9")),
    "a single part": ("llama", key("split.count", (2, b"\1\0"))),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allows(name: str, valid: dict[str, Parts], tmp_path: Path) -> None:
    seed, change = ALLOWED[name]
    read(change(valid[seed]), tmp_path)
