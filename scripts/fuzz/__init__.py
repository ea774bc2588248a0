"""Damaged GGUF files: tiny valid ones, what is done to them, and llama.cpp in a child that may die of it."""
