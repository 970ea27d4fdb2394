"""What machine is this? JetPack, L4T, CUDA, TensorRT, GPU, Python: each value with where it came from."""

from edgeinfer.environment.facts import Environment, Fact, Fault, Flavour, Reading
from edgeinfer.environment.probe import probe

__all__ = ["Environment", "Fact", "Fault", "Flavour", "Reading", "probe"]
