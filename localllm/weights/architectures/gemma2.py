"""Gemma 2: norms stored with 1 added, soft caps on scores and logits, every other layer with a sliding window
(src/models/gemma2.cpp)."""

from localllm.weights.architectures.base import Architecture, Sliding, from_key, query_scalar

ENTRY = Architecture(
    model_type="gemma2",
    families="Gemma 2",
    norm_offset=1.0,
    sliding=Sliding(period=2, default=4096),
    config={
        "attn_logit_softcapping": from_key("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": from_key("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": query_scalar(large=46),
    },
)
