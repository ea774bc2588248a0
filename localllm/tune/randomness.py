"""MLX's random state: one key of 64 bits, which every draw replaces."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def random_key() -> NDArray[np.uint32]:
    """The key as it stands, (2,)."""
    state: Any = mx.random.state
    return np.array(state[0], np.uint32)


def set_random_key(key: NDArray[np.uint32]) -> None:
    """Draw from here on what was drawn after `random_key` returned this. A seed is the key's two halves in one."""
    mx.random.seed((int(key[0]) << 32) | int(key[1]))
