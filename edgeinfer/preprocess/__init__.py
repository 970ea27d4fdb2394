"""Frames → network input, on the CPU; the kernels in `gpu/` must give the same numbers."""
