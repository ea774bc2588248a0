"""OLMo 2: norms over the whole width of q and k, and after the blocks. A file with a sliding window is OLMo 3, three
layers of four then having it, and rotary positions that are not scaled (src/models/olmo2.cpp)."""

from localllm.weights.architectures.base import Architecture, Sliding, from_key

ENTRY = Architecture(
    model_type="olmo2",
    families="OLMo 2 and 3",
    sliding=Sliding(period=4, scaled=False),
    windowed_type="olmo3",
    config={"sliding_window": from_key("attention.sliding_window", 0)},
)
