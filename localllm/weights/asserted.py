"""What llama.cpp's graphs of single architectures assert of their hyperparameters, as tables for `checks`.

From src/models/*.cpp and src/llama-arch.cpp of the llama.cpp that llama-cpp-python 0.3.36 holds. An architecture that
is in none of the tables has no such rule; one that llama.cpp does not know it refuses itself.
"""

from __future__ import annotations

_SILENT = """
    bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert gemma-embedding
    llama-embed t5 t5encoder clip wavtokenizer-dec qwen3tts pockettts eagle3 dflash gemma4-assistant
"""
_ROTATED_WHOLE = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 dream ernie4_5
    ernie4_5-moe exaone exaone4 exaone-moe falcon granite granitemoe granite_swa graniteswitch minicpm grok grovemoe
    hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 internlm2 jais2 llada llada-moe llama llama4 maincoder mellum
    mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl
    qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie xverse
"""
_SAME_LENGTHS = """
    afmoe bailingmoe2 bitnet bloom chatglm cohere2 command-r glm4 glm4moe gpt2 gptneox granitehybrid jais laguna
    minimax-01 minimax-m2 minimax-m3 mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe openelm phi2 phi3
    phimoe qwen qwen35 qwen35moe qwen3next qwen4exp refact spark2_5 stablelm starcoder
"""
_WITHOUT_ATTENTION = """
    mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7 jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h
    nemotron_h_moe qwen3next kimi-linear bailingmoe3 kimi-k3 glm5-next qwen35 qwen35moe qwen4exp deepseek4 minimax-01
"""

SILENT = frozenset(_SILENT.split())
"""They embed, listen, speak or draft: their graphs end without logits, or need an encoder or another model."""

ROTATED_WHOLE = frozenset(_ROTATED_WHOLE.split())
"""GGML_ASSERT(n_embd_head == n_rot): the position turns the whole of each attention head."""

SAME_LENGTHS = ROTATED_WHOLE | frozenset(_SAME_LENGTHS.split())
"""GGML_ASSERT(n_embd_head == hparams.n_embd_head_k()): keys are as long as values."""

SECTIONS = frozenset(("qwen2vl", "paddleocr", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp"))
"""They turn heads in sections (LLAMA_ROPE_TYPE_MROPE, _IMROPE), one of which must not be empty."""

WITHOUT_ATTENTION = frozenset(_WITHOUT_ATTENTION.split())
"""llm_arch_is_recurrent and llm_arch_is_hybrid: some layers, or all, have no attention heads."""

DIFFERENT_LAYERS = frozenset(
    ("deci", "dots3note", "gemma4", "laguna", "mimo2", "openelm", "plamo3", "spark2_5", "step35")
)
"""Their layers may differ in attention heads; the tensors of others are made as the first layer's, the cache is not."""

POSITIVE: dict[str, tuple[str, ...]] = {
    "bailingmoe2": ("expert_count",),
    "glm4moe": ("expert_count",),
    "grovemoe": ("expert_count", "experts_per_group"),
    "llada-moe": ("expert_count",),
    "smallthinker": ("expert_count",),
    "ernie4_5-moe": ("interleave_moe_layer_step",),
    "minimax-m3": ("attention.indexer.block_size",),
    "hrm_text": ("hrm.layers_per_stack", "hrm.h_cycles", "hrm.l_cycles"),
    **dict.fromkeys(("deepseek32", "dots3note", "glm-dsa", "hy_v4"), ("attention.key_length_mla",)),
}
"""Keys that must be there and not 0."""
