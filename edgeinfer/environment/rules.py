"""The rules of the diagnosis: each looks at an Environment and yields the problems that it sees."""

from __future__ import annotations

from collections.abc import Iterator

from edgeinfer.environment import jtop
from edgeinfer.environment.access_rules import ACCESS_RULES
from edgeinfer.environment.diagnosis import BOTH, ONLY_ONNXRUNTIME, Problem, Rule, pip
from edgeinfer.environment.facts import Environment, Fact, Fault
from edgeinfer.environment.gpu_rules import GPU_RULES, gpu_denied
from edgeinfer.environment.live import ACCESS
from edgeinfer.environment.tensorrt_rules import TENSORRT_RULES
from edgeinfer.environment.versions import parts

OLDEST_PYTHON = (3, 10)
COMPARED = (
    "l4t",
    "jetpack",
    "soc",
    "compute_capability",
    "cuda",
    "driver",
    "cuda_driver",
    "cudnn",
    "tensorrt",
)
"""Facts of which two answers mean trouble. Other facts may differ by design, such as a GPU's names."""


_JTOP = "nothing has to be done, it is optional; or see systemctl status jtop, and add this user to the group jtop"


def find_problems(env: Environment) -> list[Problem]:
    """Every problem, errors first."""
    found = [problem for rule in RULES for problem in rule(env)]
    return sorted(found, key=lambda problem: ("error", "warning", "note").index(problem.severity))


def python_too_old(env: Environment) -> Iterator[Problem]:
    """Edgeinfer needs Python 3.10."""
    version = env.python.value
    if version is not None and parts(version)[:2] < OLDEST_PYTHON:
        remedy = "use a newer Python, or a container that has one"
        if env.is_jetson:
            remedy += "; NVIDIA's bindings of TensorRT for this JetPack serve its own Python only"
        message = f"Python {version} is too old: edgeinfer needs 3.10 or newer"
        yield Problem("python-too-old", "error", message, remedy, BOTH)


def onnxruntime_missing(env: Environment) -> Iterator[Problem]:
    """Without it there is no fallback, and nothing to serve with while an engine is built."""
    fault = fault_of(env, "import onnxruntime")
    loads = env.onnxruntime_providers.value is not None or not env.live
    if env.onnxruntime.value is not None and not loads:
        why = fault.message if fault else f"there is {env.onnxruntime.source}, but no module"
        message = f"ONNX Runtime is installed but does not load: {why}"
        remedy = f"reinstall it: {pip(env, 'install --force-reinstall onnxruntime')}"
        yield Problem("onnxruntime-broken", "error", message, remedy, ONLY_ONNXRUNTIME)
    elif env.onnxruntime.value is None:
        message = "ONNX Runtime is not installed"
        yield Problem("onnxruntime-missing", "warning", message, pip(env, "install 'edgeinfer[cpu]'"), ONLY_ONNXRUNTIME)


def unknown_l4t(env: Environment) -> Iterator[Problem]:
    """A release that the table does not have: probing goes on, nothing is assumed of it."""
    if env.l4t.value is not None and env.jetpack.value is None:
        message = f"L4T {env.l4t.value} is not a release that this edgeinfer knows, so its JetPack is unknown"
        remedy = "nothing has to be done: what is used is probed; report the release so that it can be added"
        yield Problem("l4t-unknown", "note", message, remedy)


def upgrade_unfinished(env: Environment) -> Iterator[Problem]:
    """What is half installed may be of either version, or of none."""
    if env.unfinished.value is not None:
        message = f"an installation has been broken off: {env.unfinished.value}"
        yield Problem("upgrade-unfinished", "warning", message, "sudo dpkg --configure -a, then sudo apt install -f")


def disagreements(env: Environment) -> Iterator[Problem]:
    """Two sources with different answers."""
    facts = env.facts()
    for name in COMPARED:
        fact = facts[name]
        if fact.disagreements:
            remedy = "the first is used; if that is wrong, remove or update what the other comes from"
            yield Problem("sources-disagree", "warning", _both_sides(name, fact), remedy)


def _both_sides(name: str, fact: Fact[str]) -> str:
    others = "; ".join(f"{other.value} ({other.source})" for other in fact.disagreements)
    return f"sources disagree on {name}: {fact.value} ({fact.source}), but {others}"


def faults(env: Environment) -> Iterator[Problem]:
    """Sources that could not be used and that no other rule speaks of."""
    for fault in env.faults:
        if fault.source == jtop.NAME:
            message = f"jetson-stats is installed and can't be asked: {fault.message}"
            yield Problem("jtop-unused", "note", message, _JTOP)
        elif fault.source.startswith("/"):
            remedy = "run doctor as a user who may read it, or repair the file"
            yield Problem("unreadable", "warning", f"can't use {fault.source}: {fault.message}", remedy)
        elif not _is_elsewhere(env, fault):
            remedy = "reinstall the NVIDIA driver's libraries; after a driver update, restart the machine"
            yield Problem("library-fails", "warning", f"{fault.source}: {fault.message}", remedy)


def _is_elsewhere(env: Environment, fault: Fault) -> bool:
    """Whether another rule speaks of it, or it is as it should be here."""
    spoken = fault.source == ACCESS or fault.source.startswith("import ")
    denied = fault.source == "CUDA driver" and any(gpu_denied(env))
    return spoken or denied or (fault.source == "NVML" and _needs_no_nvml(env))


def _needs_no_nvml(env: Environment) -> bool:
    """Up to JetPack 6 a Jetson's NVML is there for a few questions, or for none."""
    return env.is_jetson and env.soc.value != "tegra264" and parts(env.l4t.value or "")[:1] < (38,)


def fault_of(env: Environment, source: str) -> Fault | None:
    """The first fault of a source."""
    return next((fault for fault in env.faults if fault.source == source), None)


RULES: tuple[Rule, ...] = (
    python_too_old,
    *GPU_RULES,
    *TENSORRT_RULES,
    *ACCESS_RULES,
    onnxruntime_missing,
    unknown_l4t,
    upgrade_unfinished,
    disagreements,
    faults,
)
