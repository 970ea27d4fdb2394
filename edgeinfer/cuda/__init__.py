"""The way to CUDA: cuda-python, or else CUDA's own libraries; and what its statuses mean."""
