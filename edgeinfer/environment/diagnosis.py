"""Judges an Environment: which backend it can run, and what is wrong with a remedy for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgeinfer import recipe
from edgeinfer.environment.facts import Environment

Backend = Literal["tensorrt", "onnxruntime"]
Severity = Literal["error", "warning", "note"]
NOTHING: tuple[Backend, ...] = ()
ONLY_TENSORRT: tuple[Backend, ...] = ("tensorrt",)
ONLY_ONNXRUNTIME: tuple[Backend, ...] = ("onnxruntime",)
BOTH: tuple[Backend, ...] = ("tensorrt", "onnxruntime")


@dataclass(frozen=True)
class Problem:
    """Something that is wrong or worth knowing. `code` is for programs; `blocks` names what can't run."""

    code: str
    severity: Severity
    message: str
    remedy: str
    blocks: tuple[Backend, ...] = NOTHING


Rule = Callable[[Environment], Iterator[Problem]]


@dataclass(frozen=True)
class Diagnosis:
    """The backend that `--backend auto` comes to; None: nothing can run. `reason` is a sentence."""

    backend: Backend | None
    reason: str


def pip(env: Environment, rest: str) -> str:
    """A command of pip's: of the one that installs into this Python, where it is this machine that is looked at."""
    return recipe.pip(rest) if env.live else f"pip {rest}"


def judge(env: Environment, problems: list[Problem]) -> Diagnosis:
    """TensorRT if nothing blocks it, else ONNX Runtime, else nothing."""
    if not _blocking(problems, "tensorrt"):
        return Diagnosis("tensorrt", _tensorrt_reason(env))
    why_not = _blocking(problems, "tensorrt")[0].message
    if not _blocking(problems, "onnxruntime"):
        return Diagnosis("onnxruntime", f"{_onnxruntime_name(env)}, because {why_not}")
    also = _blocking(problems, "onnxruntime")[0].message
    return Diagnosis(None, why_not if also == why_not else f"{why_not}, and {also}")


def _blocking(problems: list[Problem], backend: Backend) -> list[Problem]:
    return [problem for problem in problems if backend in problem.blocks]


def _tensorrt_reason(env: Environment) -> str:
    name = "TensorRT-RTX" if env.flavour == "tensorrt_rtx" else "TensorRT"
    version = env.tensorrt_in_use.value or "of unknown version"
    gpu = env.gpu.value or env.soc.value or "an NVIDIA GPU"
    capability = f" (compute capability {env.compute_capability.value})" if env.compute_capability.value else ""
    how = "" if env.live else "; by the files alone, no library was asked"
    return f"{name} {version} on {gpu}{capability}{how}"


def _onnxruntime_name(env: Environment) -> str:
    providers = env.onnxruntime_providers.value or ()
    listed = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    return f"ONNX Runtime {env.onnxruntime.value}" + (f" ({listed})" if listed else "")
