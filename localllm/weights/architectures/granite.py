"""Granite 3: Llama's rows and four multipliers; a key that is missing or 0 multiplies by nothing
(src/models/granite.cpp)."""

from localllm.weights.architectures.base import PERMUTED, Architecture, constant, head_dim, nonzero

ENTRY = Architecture(
    model_type="granite",
    families="Granite 3",
    permuted=PERMUTED,
    config={
        "attention_multiplier": nonzero("attention.scale", lambda file: float(head_dim(file)) ** -0.5),
        "embedding_multiplier": nonzero("embedding_scale", constant(1.0)),
        "residual_multiplier": nonzero("residual_scale", constant(1.0)),
        "logits_scaling": nonzero("logit_scale", constant(1.0)),
    },
    refused={"expert_count": "a mixture of experts"},
)
