"""The composition root, and a life of changes: start, sources, model, reload, stop."""
