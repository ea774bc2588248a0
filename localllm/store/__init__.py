"""The disk: which models and adapters there are, and where."""
