"""What this machine is: JetPack, L4T, CUDA, TensorRT, GPU and Python, each value with where it was read."""

from edgeinfer.environment.facts import Environment, Fact, Fault, Flavour, Reading
from edgeinfer.environment.probe import probe

__all__ = ["Environment", "Fact", "Fault", "Flavour", "Reading", "probe"]
