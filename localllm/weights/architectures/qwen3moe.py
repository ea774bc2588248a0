"""Qwen 3 as a mixture of experts. The experts of a layer are one stack (experts, out, in) in both formats; llama.cpp
always normalizes the weights of the chosen ones (src/models/qwen3moe.cpp). Fine-tuning leaves the experts and their
router alone: a low-rank change of 128 experts is larger than the attention itself."""

from localllm.weights.architectures.base import ATTENTION, Architecture, constant, from_key

ENTRY = Architecture(
    model_type="qwen3_moe",
    families="Qwen 3 30B-A3B and its kin",
    modules=(
        *ATTENTION,
        "mlp.gate",
        "mlp.switch_mlp.gate_proj",
        "mlp.switch_mlp.up_proj",
        "mlp.switch_mlp.down_proj",
    ),
    trained=ATTENTION,
    config={
        "num_experts": from_key("expert_count"),
        "num_experts_per_tok": from_key("expert_used_count"),
        "moe_intermediate_size": from_key("expert_feed_forward_length"),
        "norm_topk_prob": constant(True),
        "decoder_sparse_step": constant(1),
        "mlp_only_layers": constant([]),
    },
    aliases={"mlp.switch_mlp.": "mlp.experts."},
)
