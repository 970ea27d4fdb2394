"""Rules about the way from Python to CUDA."""

from __future__ import annotations

from collections.abc import Iterator

from edgeinfer.environment.diagnosis import ONLY_TENSORRT, Problem, Rule
from edgeinfer.environment.facts import Environment
from edgeinfer.environment.gpu_rules import has_gpu
from edgeinfer.environment.live import ACCESS


def cuda_unusable(env: Environment) -> Iterator[Problem]:
    """The driver shows a GPU, and Python can't make a stream on it."""
    if not has_gpu(env):
        return  # the missing GPU is the problem
    for fault in env.faults:
        if fault.source == ACCESS:
            message = fault.message if fault.remedy else f"{fault.source}: {fault.message}"
            remedy = fault.remedy or "reinstall cuda-python; edgeinfer works without it where libcudart is installed"
            yield Problem("cuda-unusable", "error", message, remedy, ONLY_TENSORRT)


def cuda_python_unused(env: Environment) -> Iterator[Problem]:
    """cuda-python is here, and CUDA's own library is used instead."""
    through = env.cuda_access
    if through.value is not None and through.value.startswith("libcudart") and env.cuda_python.value is not None:
        message = f"{through.source}; {through.value} is used instead"
        yield Problem("cuda-python-unused", "note", message, "nothing has to be done: it does the same")


ACCESS_RULES: tuple[Rule, ...] = (cuda_unusable, cuda_python_unused)
