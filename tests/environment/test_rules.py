"""The diagnosis of machines that are described by hand, fact by fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeinfer.environment import Environment, Fact, Reading
from edgeinfer.environment.diagnosis import Problem, judge
from edgeinfer.environment.rules import find_problems


def known(value: Any, source: str = "test") -> Fact[Any]:
    return Fact((Reading(value, source),))


JETSON = Environment(
    live=True,
    l4t=known("36.4.7"),
    jetpack=known("6.2.1"),
    soc=known("tegra234"),
    gpu=known("Orin"),
    gpu_count=known(1),
    sm_count=known(8),
    compute_capability=known("8.7"),
    python=known("3.10.12"),
    system_python=known("3.10.12"),
    onnxruntime=known("1.23.0"),
    onnxruntime_providers=known(("CPUExecutionProvider",)),
    cuda_driver=known("12.6"),
    tensorrt=known("10.3.0.30", "dpkg libnvinfer10 10.3.0.30-1+cuda12.5"),
    tensorrt_module=known("/usr/lib/python3.10/dist-packages/tensorrt"),
)
HERE = known("/usr/lib/python3.10/dist-packages/tensorrt")
PC = replace(JETSON, l4t=Fact(), jetpack=Fact(), soc=Fact(), driver=known("580.95.05"), cuda_driver=known("13.0"))


def codes(env: Environment) -> set[str]:
    return {problem.code for problem in find_problems(env)}


def only(env: Environment, code: str) -> Problem:
    (problem,) = (problem for problem in find_problems(env) if problem.code == code)
    return problem


def backend(env: Environment) -> str | None:
    return judge(env, find_problems(env)).backend


def test_a_healthy_machine_has_no_problems() -> None:
    assert codes(JETSON) == codes(PC) == set()
    verdict = judge(JETSON, [])
    assert verdict.backend == "tensorrt"
    assert verdict.reason == "TensorRT 10.3.0.30 on Orin (compute capability 8.7)"


def test_bindings_that_a_virtual_environment_hides() -> None:
    env = replace(JETSON, tensorrt_module=Fact(), tensorrt_system_module=HERE, python_venv=known(True))
    problem = only(env, "tensorrt-not-visible")
    assert "--system-site-packages" in problem.remedy
    assert backend(env) == "onnxruntime"


def test_bindings_for_another_python() -> None:
    env = replace(JETSON, tensorrt_module=Fact(), tensorrt_system_module=HERE, python=known("3.12.1"))
    problem = only(env, "tensorrt-other-python")
    assert "Python 3.10" in problem.message
    assert "Python 3.12" in problem.message
    assert "python3.10" in problem.remedy


def test_no_tensorrt_on_jetpack_6_does_not_send_people_to_pip() -> None:
    problem = only(replace(JETSON, tensorrt_module=Fact(), tensorrt=Fact()), "tensorrt-missing")
    assert problem.remedy.startswith("sudo apt install")
    assert "PyPI has no TensorRT" in problem.remedy


@pytest.mark.parametrize(("driver", "wheel"), [("580.95.05", "tensorrt-cu13"), ("550.54.14", "tensorrt-cu12")])
def test_no_tensorrt_on_a_pc_names_the_wheel_for_the_driver(driver: str, wheel: str) -> None:
    env = replace(PC, tensorrt_module=Fact(), tensorrt=Fact(), driver=known(driver), cuda_driver=Fact())
    assert only(env, "tensorrt-missing").remedy == f"pip install {wheel}"


def test_a_driver_that_is_older_than_tensorrt_s_cuda() -> None:
    tensorrt = known("10.16.1.11", "/x/tensorrt_cu13_libs-10.16.1.11.dist-info")
    env = replace(PC, tensorrt=tensorrt, driver=known("550.54.14"), cuda_driver=known("12.4"))
    assert "serves CUDA 12, and TensorRT needs CUDA 13" in only(env, "driver-too-old").message
    assert backend(env) == "onnxruntime"
    assert "driver-too-old" in codes(replace(env, cuda_driver=Fact()))  # by the driver's number alone
    assert "driver-too-old" not in codes(replace(env, driver=known("580.65.06"), cuda_driver=Fact()))


def test_jetpack_5_s_driver_number_is_not_read_as_a_pc_s() -> None:
    env = replace(JETSON, driver=known("35.3.1"), cuda_driver=Fact())
    assert "driver-too-old" not in codes(env)


@pytest.mark.parametrize(
    ("env", "remedy"),
    [
        (replace(JETSON, container=known(True)), "--runtime nvidia"),
        (JETSON, "group video"),
        (replace(PC, container=known(True)), "--gpus all"),
        (PC, "nvidia-smi"),
    ],
)
def test_a_gpu_that_programs_cannot_reach(env: Environment, remedy: str) -> None:
    env = replace(env, sm_count=Fact(), gpu_count=Fact())
    assert remedy in only(env, "gpu-unreachable").remedy
    assert backend(env) == "onnxruntime"


def test_rtx_is_used_on_a_pc_and_not_on_a_jetson() -> None:
    rtx: dict[str, Any] = {"tensorrt": Fact(), "tensorrt_module": Fact(), "tensorrt_rtx": known("1.7.1.116")}
    env = replace(PC, **rtx, tensorrt_rtx_module=known("/x/tensorrt_rtx"))
    assert (env.flavour, env.tensorrt_in_use.value, backend(env)) == ("tensorrt_rtx", "1.7.1.116", "tensorrt")
    env = replace(JETSON, **rtx, tensorrt_rtx_module=known("/x/tensorrt_rtx"))
    assert "rtx-on-jetson" in codes(env)
    assert backend(env) == "onnxruntime"


def test_tensorrt_before_rtx_but_what_can_be_imported_before_what_cannot() -> None:
    both = replace(PC, tensorrt_rtx=known("1.7.1.116"), tensorrt_rtx_module=known("/x/tensorrt_rtx"))
    assert both.flavour == "tensorrt"
    assert replace(both, tensorrt_module=Fact()).flavour == "tensorrt_rtx"


def test_an_old_tensorrt() -> None:
    assert "tensorrt-too-old" in codes(replace(PC, tensorrt=known("8.4.1.5")))
    assert "tensorrt-too-old" not in codes(replace(PC, tensorrt=known("8.5.2.2")))


def test_a_tensorrt_that_is_not_the_jetpack_s_is_used_and_noted() -> None:
    env = replace(JETSON, tensorrt=known("10.7.0.23"))
    assert only(env, "tensorrt-unlisted").severity == "note"
    assert backend(env) == "tensorrt"
    assert "tensorrt-unlisted" not in codes(replace(JETSON, tensorrt=known("10.3.0")))
    assert "tensorrt-unlisted" in codes(replace(JETSON, tensorrt=known("10.3.0.3")))


def test_errors_come_first() -> None:
    env = replace(PC, tensorrt=known("8.4.1.5"), l4t=known("99.1.0"))
    ranks = [("error", "warning", "note").index(problem.severity) for problem in find_problems(env)]
    assert ranks == sorted(ranks)


def test_a_longer_version_completes_a_shorter_one_and_is_no_disagreement() -> None:
    fact = Fact((Reading("10.3.0", "import", exact=False), Reading("10.3.0.30", "library")))
    assert (fact.value, fact.source, fact.disagreements) == ("10.3.0.30", "library", ())
    other = Fact((*fact.readings, Reading("10.3.1.1", "package")))
    assert other.disagreements == (Reading("10.3.1.1", "package"),)
    assert Fact((Reading("6.2", "a"), Reading("6.2.1", "b"))).disagreements == (Reading("6.2.1", "b"),)
