"""Phi-3 and Phi-4-mini: q, k and v in one matrix, gate and up in another; longrope keeps its factors in two tensors."""

from localllm.weights.architectures.base import Architecture, head_dim, integer

ENTRY = Architecture(
    model_type="phi3",
    families="Phi-3, Phi-3.5 and Phi-4-mini",
    modules=("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    config={"partial_rotary_factor": lambda file: integer(file, "rope.dimension_count") / head_dim(file)},
)
