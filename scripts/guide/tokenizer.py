"""The byte-level BPE of the built-in model: 4096 tokens, split as llama.cpp splits for its `qwen2` pre-tokenizer."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .settings import IM_END, IM_START, QWEN2_SPLIT, SPECIALS

# While merges are learned, only a space may open a word: with `"K` or `(K` as one token a name would change its tokens
# between a sentence and a JSON string, and could not be copied token by token.
_MARK_BEFORE_WORD = r"[^\s\p{L}\p{N}](?=\p{L})"


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learn the merges; the special tokens take the first ids and all 256 bytes are in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_split(QWEN2_SPLIT), _split(_MARK_BEFORE_WORD), bytes_only])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_split(QWEN2_SPLIT), bytes_only])
    if tokenizer.get_vocab_size() != vocab:
        raise SystemExit(f"the texts gave {tokenizer.get_vocab_size()} tokens, not {vocab}: give more text")
    return tokenizer


def load(path: Path) -> Tokenizer:
    """A tokenizer saved before."""
    return Tokenizer.from_file(str(path))


def pieces(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokens that are letters only, without the space before them."""
    found = {tokenizer.decode([i]).strip() for i in range(len(SPECIALS), tokenizer.get_vocab_size())}
    return tuple(sorted(text for text in found if text.isalpha()))


def render(messages: list[dict[str, str]], answer_next: bool = False) -> str:
    """A conversation as ChatML, the same text as the template in the file gives."""
    text = "".join(f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages)
    return text + (f"{IM_START}assistant\n" if answer_next else "")


def encode_example(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation and which of them are learned: the assistant's words and the end of its messages."""
    ids: list[int] = []
    learned: list[bool] = []
    for message in messages:
        head = tokenizer.encode(f"{IM_START}{message['role']}\n").ids
        body = tokenizer.encode(f"{message['content']}{IM_END}").ids
        tail = tokenizer.encode("\n").ids
        ids += head + body + tail
        own = message["role"] == "assistant"
        learned += [False] * len(head) + [own] * len(body) + [False] * len(tail)
    return ids, learned
