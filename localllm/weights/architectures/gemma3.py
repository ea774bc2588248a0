"""Gemma 3, text: norms stored with 1 added, on q and k too; five layers of six have a sliding window and a rotary base
of their own, which the scaling of positions leaves alone (src/models/gemma3.cpp)."""

from localllm.weights.architectures.base import Architecture, Sliding, from_key, query_scalar

ENTRY = Architecture(
    model_type="gemma3_text",
    families="Gemma 3 (text)",
    norm_offset=1.0,
    sliding=Sliding(period=6, base="rope.freq_base_swa", scaled=False),
    config={
        "query_pre_attn_scalar": query_scalar(large=62),
        "sliding_window": from_key("attention.sliding_window", 1 << 30),
    },
    refused={"final_logit_softcapping": "a Gemma 3 with capped logits"},
)
