"""How the built-in model is made: tokenizer, starting weights, tasks, training, export and measurement."""
