"""The page in real browsers: what is shown is what happens, and nobody else gets to see it."""
