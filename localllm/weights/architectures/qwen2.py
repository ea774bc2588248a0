"""Qwen 2 and 2.5: biases on q, k and v."""

from localllm.weights.architectures.base import Architecture

ENTRY = Architecture(model_type="qwen2", families="Qwen 2 and 2.5", missing_bias_is_zero=True)
