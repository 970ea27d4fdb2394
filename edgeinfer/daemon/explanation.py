"""Why TensorRT is not used, in the words of `edgeinfer doctor`: the same line wherever somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeinfer.environment import Environment, probe
from edgeinfer.environment.rules import find_problems
from edgeinfer.errors import EdgeinferError, UnavailableError
from edgeinfer.recipe import on_jetson

TRACES = ("proc/driver/nvidia/version", "dev/nvmap", "dev/nvidiactl", "dev/nvhost-ctrl")
Probe = Callable[[], Environment]


def explain(error: EdgeinferError, ask: Probe = probe, root: Path = Path("/")) -> EdgeinferError | None:
    """What stands in TensorRT's way where `error` says that it can't be used. May take seconds: libraries are asked.

    None on a machine without any trace of an NVIDIA GPU, where nothing is amiss. An error that is about something else
    than what the machine has is its own explanation.
    """
    if not isinstance(error, UnavailableError):
        return error
    if not has_traces(root):
        return None
    for problem in find_problems(ask()):
        if "tensorrt" in problem.blocks:
            return UnavailableError(problem.message, problem.remedy)
    return error


def has_traces(root: Path = Path("/")) -> bool:
    """Whether there is anything of an NVIDIA GPU's driver or of a Jetson. Cheap: only looks at a few files."""
    return on_jetson(root) or any((root / trace).exists() for trace in TRACES)
