"""The way to CUDA: cuda-python, or else CUDA's own libraries; what its statuses mean, and whether NVDEC is there."""
