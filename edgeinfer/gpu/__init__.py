"""CUDA: its runtime, the judgement of its errors, our kernels, and memory that the GPU can read."""
