"""The cache of engines: key, manifest, lock, trust."""
