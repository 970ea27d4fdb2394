"""The cache of engines: what an engine depends on, what is written beside it, and which files are trusted."""
