"""How good answers are, and how alike two engines: pure functions over texts and arrays."""
