"""TensorRT engines: read their headers, name them by everything that binds them, build, check and keep them.

TensorRT, ONNX, ONNX Runtime and CUDA are imported when a function needs them.
"""
