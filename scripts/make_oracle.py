#!/usr/bin/env python3
"""Make tests/oracle again: tiny random models of every architecture, converted to GGUF by llama.cpp's own converter.

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers sentencepiece numpy gguf
    ENV/bin/python scripts/make_oracle.py --src LLAMA_CPP --quantize LLAMA_QUANTIZE [NAME ...]

LLAMA_CPP is llama.cpp's source tree and LLAMA_QUANTIZE its program llama-quantize, both of the version that
llama-cpp-python bundles. Each model has what is special about its architecture switched on where 128 tokens show it:
sliding windows of 48 tokens, scaled positions, multipliers, caps, experts, fused matrices. Files are Q4_K_M, which
holds Q4_K and Q6_K; the tests save them again in other types.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parents[1] / "tests" / "oracle"
SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 256, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 500000.0}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(24)],
            "long_factor": [1.5 + 0.3 * i for i in range(24)], "rope_theta": 10000.0}  # fmt: skip
MODELS: dict[str, tuple[Any, dict[str, Any], list[str]]] = {  # name -> configuration, what is special, options
    "llama": (hf.LlamaConfig, {}, []),
    "llama3": (hf.LlamaConfig, {"rope_parameters": LLAMA3, "tie_word_embeddings": True}, []),
    "llama-fused": (hf.LlamaConfig, {}, ["--fuse-qkv"]),
    "qwen2": (hf.Qwen2Config, {}, []),
    "qwen2-fused": (hf.Qwen2Config, {}, ["--fuse-qkv"]),
    "qwen3": (hf.Qwen3Config, {"head_dim": 128, "rope_parameters": YARN}, []),
    "qwen3moe": (hf.Qwen3MoeConfig, {"head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2,
                                     "moe_intermediate_size": 256, "rope_parameters": YARN}, []),
    "gemma2": (hf.Gemma2Config, {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 48}, []),
    "gemma3": (hf.Gemma3TextConfig, {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 48,
                                     "num_hidden_layers": 7, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}, []),
    "phi3": (hf.Phi3Config, {"original_max_position_embeddings": 512, "partial_rotary_factor": 0.75}, []),
    "phi3-longrope": (hf.Phi3Config, {"original_max_position_embeddings": 64, "partial_rotary_factor": 0.75,
                                      "rope_parameters": LONGROPE | {"partial_rotary_factor": 0.75}}, []),
    "smollm3": (hf.SmolLM3Config, {"num_hidden_layers": 4}, []),
    "olmo2": (hf.Olmo2Config, {}, []),
    "olmo3": (hf.Olmo3Config, {"num_hidden_layers": 4, "sliding_window": 48}, []),
    "granite": (hf.GraniteConfig, {"attention_multiplier": 0.1, "embedding_multiplier": 3.0,
                                   "residual_multiplier": 0.4, "logits_scaling": 2.0}, []),
}  # fmt: skip
SENTENCEPIECE = ("gemma2", "phi3", "phi3-longrope")
CONVERT = """
import runpy, sys
sys.path[:0] = [{src!r}, {src!r} + "/gguf-py"]
sys.argv = ["convert_hf_to_gguf.py", {folder!r}, "--outfile", {out!r}, "--outtype", "f32", *{options!r}]
import conversion.base as base
for c in vars(base).values():
    if isinstance(c, type) and hasattr(c, "get_vocab_base_pre"):
        c.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"  # it knows tokenizers by a hash; ours is made here
runpy.run_path({src!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def corpus() -> list[str]:
    """Text to train vocabularies on: Python's own library."""
    return sorted(str(p) for p in Path(sysconfig.get_paths()["stdlib"]).glob("[a-c]*.py"))


def byte_pairs(folder: Path) -> None:
    """A vocabulary of byte pairs, as transformers keeps it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train(corpus(), trainer)
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[2], pad_token=special[0]
    )
    fast.save_pretrained(folder)


def sentence_pieces(folder: Path) -> None:
    """A vocabulary of the sentencepiece library, which some converters insist on."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=",".join(corpus()[:20]), model_prefix=f"{folder}/tokenizer", vocab_size=512, model_type="bpe",
        byte_fallback=True, character_coverage=0.99, pad_id=0, unk_id=3, bos_id=1, eos_id=2, minloglevel=2,
    )  # fmt: skip


def random_model(name: str, folder: Path) -> None:
    """A Hugging Face folder with random weights; norms are spread around what leaves a value as it is."""
    config, special, _ = MODELS[name]
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config(**{**SHAPE, **special}))
    with torch.no_grad():
        for key, value in model.named_parameters():
            neutral = 1.0 if value.ndim == 1 and "bias" not in key and "gemma" not in name else 0.0
            value.copy_(torch.randn_like(value) * (0.1 if value.ndim == 1 else 0.05) + neutral)
    model.to(torch.float32).save_pretrained(folder)


def make(name: str, source: Path, quantize: Path) -> Path:
    """Make one file; raises CalledProcessError with what a program said."""
    with tempfile.TemporaryDirectory() as work:
        # llama.cpp looks up special tokens by general.name, which comes from the folder: "phi3" must not be in it
        folder = Path(work) / name.replace("phi3", "fye3")
        folder.mkdir()
        random_model(name, folder)
        (sentence_pieces if name in SENTENCEPIECE else byte_pairs)(folder)
        whole, small = Path(work) / "f32.gguf", OUT / f"{name}.gguf"
        code = CONVERT.format(src=str(source), folder=str(folder), out=str(whole), options=MODELS[name][2])
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        subprocess.run([quantize, whole, small, "Q4_K_M", "1"], check=True, capture_output=True, text=True)
    return small


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {' '.join(MODELS)}")
    parser.add_argument("--src", type=Path, required=True, help="llama.cpp's source tree")
    parser.add_argument("--quantize", type=Path, required=True, help="the program llama-quantize")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in args.names or MODELS:
        try:
            print(f"{name}: {make(name, args.src.resolve(), args.quantize.resolve()).stat().st_size / 1e6:.2f} MB")
        except subprocess.CalledProcessError as error:
            failed += 1
            print(f"{name}: {error.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
