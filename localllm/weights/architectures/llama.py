"""Llama: the plain block. The converter interleaves the two halves of every head's rows in q and k; Llama 3's scaling
of positions is in the tensor rope_freqs.weight. llama.cpp ignores Mistral's sliding window, and so do we."""

from localllm.weights.architectures.base import PERMUTED, Architecture

ENTRY = Architecture(
    model_type="llama",
    families="Llama 2 and 3, Mistral, SmolLM2, TinyLlama",
    permuted=PERMUTED,
    refused={"expert_count": "a mixture of experts (Mixtral)"},
)
