#!/usr/bin/env python3
"""Make the golden adapters of tests/weights/adapters: what PEFT writes, what llama.cpp's converter makes of it, and the
logits that PEFT computes with it in float32.

    python scripts/make_adapters.py --src LLAMA_CPP_SOURCE [OUT]

Runs in an environment of its own with torch, transformers, peft and gguf (made with torch 2.13, transformers 5.23, peft
0.21 and the converters of llama-cpp-python 0.3.36's source archive); the project itself needs none of them. For each of
two tiny random models, OUT/NAME.gguf (F16), and for each adapter on one of them:

    OUT/ADAPTER/adapter_model.safetensors, adapter_config.json   as PeftModel.save_pretrained writes them
    OUT/ADAPTER/adapter.gguf                                     from convert_lora_to_gguf.py
    OUT/ADAPTER/logits.npz                                       tokens (n), base and adapted (n, vocabulary), float32
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers as hf
from make_oracle import CONVERT, byte_pairs

VOCABULARY, TOKENS = 512, 12
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (hf.LlamaConfig, {}),
    "qwen3": (hf.Qwen3Config, {"head_dim": 16}),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-plain": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": LINEAR}),
    "llama-patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": LINEAR,
            "rank_pattern": {"q_proj": 2, "model.layers.1.mlp.down_proj": 6},
            "alpha_pattern": {"k_proj": 3, "layers.1.*v_proj": 16},
        },
    ),
    "llama-ends": ("llama", {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "qwen3-rslora": ("qwen3", {"r": 4, "lora_alpha": 8, "target_modules": LINEAR, "use_rslora": True}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("tests/weights/adapters"))
    parser.add_argument("--src", required=True, type=Path, help="llama.cpp's source tree")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            make_model(name, Path(work) / name, args.out / f"{name}.gguf", args.src.resolve())
        for name, (model, settings) in ADAPTERS.items():
            make_adapter(Path(work) / model, settings, args.out / name, args.src.resolve())
    for path in sorted(args.out.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:8} {path.relative_to(args.out)}")
    return 0


def make_model(name: str, folder: Path, out: Path, src: Path) -> None:
    """A random Hugging Face model in float16 with a byte-level tokenizer, and its GGUF."""
    torch.manual_seed(0)
    config, extra = MODELS[name]
    model = hf.AutoModelForCausalLM.from_config(config(**SHAPE, **extra))
    with torch.no_grad():
        for parameter in model.parameters():
            norm = parameter.ndim == 1
            parameter.copy_(torch.randn_like(parameter) * (0.1 if norm else 0.2) + norm)
    model.to(torch.float16).save_pretrained(folder)
    byte_pairs(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    program = CONVERT.format(src=str(src), folder=str(folder), out=str(out.resolve()), options=["--outtype", "f16"])
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def make_adapter(model: Path, settings: dict[str, Any], out: Path, src: Path) -> None:
    """An adapter with random numbers in B too, saved by PEFT and converted by llama.cpp's program."""
    torch.manual_seed(1)
    base = hf.AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32)
    tokens = torch.randint(3, VOCABULARY, (1, TOKENS))
    with torch.no_grad():
        before = base(tokens).logits[0].numpy()
        adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        after = adapted(tokens).logits[0].numpy()
        adapted.save_pretrained(out)
    (out / "README.md").unlink()
    clean(out / "adapter_config.json")
    command = [sys.executable, src / "convert_lora_to_gguf.py", "--base", model, "--outfile", out / "adapter.gguf", out]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    np.savez(out / "logits.npz", tokens=tokens[0].numpy(), base=before, adapted=after)


def clean(path: Path) -> None:
    """The folder that the model lay in is nobody's concern."""
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
