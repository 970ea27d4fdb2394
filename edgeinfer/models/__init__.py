"""The models that ship with the package, and the reading of ONNX files."""
