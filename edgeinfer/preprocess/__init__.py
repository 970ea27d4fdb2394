"""Frames → network input. `letterbox.py` is the CPU reference whose numbers every other way must match."""
