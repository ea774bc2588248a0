"""Qwen 3: norms on the heads of q and k."""

from localllm.weights.architectures.base import Architecture

ENTRY = Architecture(model_type="qwen3", families="Qwen 3")
