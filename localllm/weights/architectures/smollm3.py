"""SmolLM3: Llama's rows and every fourth layer without rotary positions, a constant in both programs."""

from localllm.weights.architectures.base import PERMUTED, Architecture, constant

ENTRY = Architecture(
    model_type="smollm3", families="SmolLM3", permuted=PERMUTED, config={"no_rope_layer_interval": constant(4)}
)
