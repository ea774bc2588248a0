"""What the program knows about itself: entries, their search index, the built-in model's context, and pages of them."""
