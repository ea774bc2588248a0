"""One region of the screen per file. Widgets draw what they are given and never call the engine."""
