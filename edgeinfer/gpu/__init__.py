"""The CUDA runtime, its status, kernels, pinned memory. One checker for all."""
