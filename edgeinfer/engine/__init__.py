"""TensorRT engines: the options of a build, the machine that an engine is for, and the library that makes it.

TensorRT, ONNX, ONNX Runtime and CUDA are imported when a function needs them.
"""
