"""The diagnosis of machines that are described by hand, fact by fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeinfer.environment import Environment, Fact, Fault, Reading
from edgeinfer.environment.diagnosis import Problem, judge
from edgeinfer.environment.gpu_rules import cuda_major, served_major
from edgeinfer.environment.rules import COMPARED, find_problems


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


@pytest.mark.parametrize(
    ("change", "code", "severity", "blocks", "remedy"),
    [
        ({"python": known("3.9.18")}, "python-too-old", "error", ("tensorrt", "onnxruntime"), "this JetPack serve"),
        ({"onnxruntime": Fact()}, "onnxruntime-missing", "warning", ("onnxruntime",), "pip install 'edgeinfer[cpu]'"),
        ({"l4t": known("99.1.0"), "jetpack": Fact()}, "l4t-unknown", "note", (), "report the release"),
        ({"tensorrt": known("8.4.1.5")}, "tensorrt-too-old", "error", ("tensorrt",), "install a newer"),
        ({"cuda_driver": known("11.8")}, "driver-too-old", "error", ("tensorrt",), "update JetPack as a whole"),
    ],
)
def test_what_a_problem_blocks_and_how_it_is_mended(
    change: dict[str, Any], code: str, severity: str, blocks: tuple[str, ...], remedy: str
) -> None:
    problem = only(replace(JETSON, **change), code)
    assert (problem.severity, problem.blocks) == (severity, blocks)
    assert remedy in problem.remedy


def test_python_from_3_10_on() -> None:
    for version in ("3.10.0", "3.10", "3.13.1", "4.0"):
        assert "python-too-old" not in codes(replace(PC, python=known(version)))
    for version in ("3.9.20", "2.7.18"):
        assert "python-too-old" in codes(replace(PC, python=known(version)))
        assert backend(replace(PC, python=known(version))) is None


def test_faults_of_files_and_of_libraries() -> None:
    told = (Fault("/etc/x", "denied"), Fault("NVML", "broken"), Fault("import onnxruntime", "oops"))
    env = replace(PC, live=True, faults=told)
    assert "can't use /etc/x: denied" in only(env, "unreadable").message
    assert "NVML: broken" in only(env, "library-fails").message
    assert {only(env, "unreadable").severity, only(env, "library-fails").severity} == {"warning"}
    broken = replace(env, onnxruntime_providers=Fact())
    assert only(broken, "onnxruntime-broken").message.endswith("does not load: oops")
    assert only(replace(broken, faults=()), "onnxruntime-broken").message.endswith("there is test, but no module")
    assert "onnxruntime-broken" not in codes(replace(broken, live=False)), "of a captured tree nothing is known of it"


def test_bindings_that_do_not_load() -> None:
    lost = Fault("import tensorrt", "libnvinfer.so.10: cannot open shared object file")
    env = replace(PC, faults=(lost,), tensorrt_module=Fact())
    problem = only(env, "tensorrt-broken")
    assert (problem.severity, problem.blocks) == ("error", ("tensorrt",))
    assert "installed but does not load" in problem.message
    assert "LD_LIBRARY_PATH" in problem.remedy
    rtx = replace(env, tensorrt_rtx=known("1.7.1.116"), tensorrt_rtx_module=known("/x/tensorrt_rtx"))
    assert (only(rtx, "tensorrt-broken").severity, only(rtx, "tensorrt-broken").blocks) == ("warning", ())
    assert backend(rtx) == "tensorrt", "the other one works"
    numpy = replace(PC, faults=(Fault("import tensorrt", "module 'numpy' has no attribute 'bool'"),))
    assert "NumPy below 1.24" in only(numpy, "tensorrt-broken").remedy
    assert "loads but then fails" in only(numpy, "tensorrt-broken").message


@pytest.mark.parametrize(
    ("l4t", "soc", "told"),
    [
        ("36.4.7", "tegra234", False), ("35.4.1", "tegra194", False), (None, "tegra234", False),
        ("38.2.0", "tegra264", True), ("39.2.1", "tegra234", True), (None, "tegra264", True), (None, None, True),
    ],
)  # fmt: skip
def test_an_nvml_that_fails_is_normal_up_to_jetpack_6(l4t: str | None, soc: str | None, told: bool) -> None:
    env = replace(JETSON, l4t=known(l4t) if l4t else Fact(), soc=known(soc) if soc else Fact())
    nvml = replace(env, faults=(Fault("NVML", "nvmlInit failed with error 3"),))
    assert ("library-fails" in codes(nvml)) == told
    assert "library-fails" in codes(replace(env, faults=(Fault("CUDA driver", "cuInit failed with error 3"),)))


def test_the_library_without_its_bindings() -> None:
    remedy = only(replace(JETSON, tensorrt_module=Fact()), "tensorrt-bindings-missing").remedy
    assert remedy == (
        "sudo apt install python3-libnvinfer, then a venv that sees it: "
        "/usr/bin/python3.10 -m venv --system-site-packages VENV"
    )
    pc = replace(PC, tensorrt_module=Fact())
    assert only(pc, "tensorrt-bindings-missing").remedy == "pip install tensorrt-cu13==10.3.0.30"
    rtx = replace(pc, tensorrt=Fact(), tensorrt_rtx=known("1.7.1.116"))
    assert only(rtx, "tensorrt-bindings-missing").remedy == "pip install tensorrt-rtx==1.7.1.116"


def test_jetpack_7_has_wheels_on_pypi() -> None:
    thor = replace(JETSON, tensorrt_module=Fact(), tensorrt=Fact(), l4t=known("38.2.0"), soc=known("tegra264"))
    assert "PyPI" not in only(thor, "tensorrt-missing").remedy


@pytest.mark.parametrize(
    ("soc", "version", "warned"),
    [("tegra264", "10.13.3.9", True), ("tegra264", "10.16.2.10", False), ("tegra234", "10.13.3.9", False)],
)
def test_what_others_found_to_be_wrong_on_thor(soc: str, version: str, warned: bool) -> None:
    env = replace(JETSON, soc=known(soc), tensorrt=known(version))
    assert ("tensorrt-known-bad" in codes(env)) == warned


@pytest.mark.parametrize(
    ("source", "cuda"),
    [
        ("dpkg libnvinfer10 10.3.0.30-1+cuda12.5", 12),
        ("/x/tensorrt_cu13_libs-10.16.1.11.dist-info", 13),
        ("/x/tensorrt_cu13-10.16.1.11.dist-info", 13),
        ("/usr/lib/libnvinfer.so.10", 11),
    ],
)
def test_the_cuda_that_tensorrt_was_built_for(source: str, cuda: int) -> None:
    env = replace(PC, tensorrt=known("10.3.0.30", source), cuda=known("11.4"), cuda_runtime=known("11.8"))
    assert cuda_major(replace(env, live=False)) == cuda
    named = "cu" in source.rpartition("/")[2]
    assert cuda_major(env) == (cuda if named else None), "another toolkit may lie beside on a machine that runs"


@pytest.mark.parametrize(
    ("driver", "served"),
    [("580.00", 13), ("579.99", 12), ("525.60", 12), ("524.9", 11), ("450.80", 11), ("449.9", None), ("", None)],
)
def test_the_cuda_that_a_driver_serves(driver: str, served: int | None) -> None:
    assert served_major(replace(PC, driver=known(driver), cuda_driver=Fact())) == served
    assert served_major(replace(PC, driver=known(driver), cuda_driver=known("12.4"))) == 12, "its own word counts"


def test_no_gpu_is_said_once_and_with_what_a_container_needs() -> None:
    gone = ("driver", "cuda_driver", "sm_count", "gpu_count", "tensorrt", "tensorrt_module")
    nothing: dict[str, Any] = {name: Fact() for name in gone}
    env = replace(PC, **nothing)
    assert codes(env) == {"no-gpu"}
    assert (only(env, "no-gpu").severity, only(env, "no-gpu").blocks) == ("note", ("tensorrt",))
    assert "--gpus all" not in only(env, "no-gpu").remedy
    assert "--gpus all (on Jetson: --runtime nvidia)" in only(replace(env, container=known(True)), "no-gpu").remedy
    hidden = replace(env, gpu_count=known(0), cuda_visible_devices=known("7"))
    assert only(hidden, "gpu-hidden").message == "CUDA_VISIBLE_DEVICES='7' hides every GPU"
    assert "no-gpu" not in codes(hidden)


def test_the_verdict_in_words() -> None:
    tree = replace(JETSON, live=False, gpu=Fact())
    assert judge(tree, []).reason == (
        "TensorRT 10.3.0.30 on tegra234 (compute capability 8.7); by the files alone, no library was asked"
    )
    old = replace(PC, tensorrt=known("8.4.1.5"))
    assert judge(old, find_problems(old)).reason == (
        "ONNX Runtime 1.23.0 (CPU), because TensorRT 8.4.1.5 is too old: edgeinfer needs 8.5 or newer"
    )
    worse = replace(old, onnxruntime=Fact())
    assert judge(worse, find_problems(worse)).reason.endswith(", and ONNX Runtime is not installed")
    ancient = replace(PC, python=known("3.8.1"))
    assert judge(ancient, find_problems(ancient)).reason == "Python 3.8.1 is too old: edgeinfer needs 3.10 or newer"


@pytest.mark.parametrize("name", COMPARED)
def test_two_answers_of_what_can_only_have_one(name: str) -> None:
    both: dict[str, Any] = {name: Fact((Reading("1.0", "here"), Reading("2.0", "there")))}
    env = replace(PC, **both)
    told = [problem for problem in find_problems(env) if problem.code == "sources-disagree"]
    assert [problem.message for problem in told] == [f"sources disagree on {name}: 1.0 (here), but 2.0 (there)"]
    assert "sources-disagree" not in codes(replace(PC, gpu=Fact((Reading("a", "here"), Reading("b", "there")))))


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


def test_what_python_says_when_it_can_not_reach_cuda() -> None:
    why = Fault("CUDA from Python", "cuda-python is not installed", "pip install 'edgeinfer[jetpack6]'")
    problem = only(replace(JETSON, faults=(why,)), "cuda-unusable")
    assert (problem.message, problem.remedy) == (why.message, why.remedy)
    assert backend(replace(JETSON, faults=(why,))) == "onnxruntime"
    assert codes(replace(JETSON, faults=(why,))) == {"cuda-unusable"}, "said once"


def test_a_way_to_cuda_that_crashes_is_told_with_a_way_out() -> None:
    problem = only(replace(JETSON, faults=(Fault("CUDA from Python", "crashed with SIGSEGV"),)), "cuda-unusable")
    assert problem.message == "CUDA from Python: crashed with SIGSEGV"
    assert "reinstall cuda-python" in problem.remedy


def test_without_a_gpu_nobody_asks_how_python_would_reach_it() -> None:
    why = Fault("CUDA from Python", "there is no CUDA driver here", "see edgeinfer doctor")
    assert "cuda-unusable" not in codes(replace(JETSON, sm_count=Fact(), faults=(why,)))


def test_a_cuda_python_that_was_passed_over_is_noted() -> None:
    through = known("libcudart.so.12", "cuda-python 13.4.4 needs a newer driver: this one serves CUDA 12.6")
    env = replace(JETSON, cuda_python=known("13.4.4"), cuda_access=through)
    problem = only(env, "cuda-python-unused")
    assert problem.message == f"{through.source}; libcudart.so.12 is used instead"
    assert backend(env) == "tensorrt"
    assert not codes(replace(env, cuda_python=Fact())), "without one there is nothing to note"
    assert not codes(replace(env, cuda_access=known("cuda-python 13.4.4", "it has made a stream")))


@pytest.mark.parametrize(
    ("group", "remedy"),
    [
        ("video", "sudo usermod -aG video mia, then log in again; a service: systemctl restart edgeinfer"),
        ("root", "check udev's rules for it"),
    ],
)
def test_device_nodes_that_this_user_may_not_open(group: str, remedy: str) -> None:
    nodes = known(("/dev/nvmap", "/dev/nvhost-gpu"), f"group {group}")
    env = replace(JETSON, closed_nodes=nodes, user=known("mia"))
    assert not codes(env), "CUDA works all the same"
    lost = replace(env, sm_count=Fact(), gpu_count=Fact())
    problem = only(lost, "gpu-denied")
    assert problem.message == f"this user may not open /dev/nvmap, the GPU's device, which belongs to group {group}"
    assert problem.remedy == remedy
    assert "gpu-unreachable" not in codes(lost)
    assert backend(lost) == "onnxruntime"


def test_pips_tensorrt_on_a_jetpack_of_another_cuda() -> None:
    wheel = known("10.16.1.11", "/v/lib/python3.10/site-packages/tensorrt_cu13-10.16.1.11.dist-info")
    place = known("/v/lib/python3.10/site-packages/tensorrt")
    problem = only(replace(JETSON, tensorrt=wheel, tensorrt_module=place), "driver-too-old")
    assert problem.message == (
        f"pip's TensorRT 10.16.1.11 in {place.value} is for CUDA 13, and this JetPack's driver serves CUDA 12"
    )
    assert problem.remedy.startswith("pip uninstall tensorrt tensorrt_cu13 tensorrt_cu13_bindings tensorrt_cu13_libs")


def test_a_jetsons_driver_is_not_updated_alone() -> None:
    assert only(replace(JETSON, cuda_driver=known("11.4")), "driver-too-old").remedy.startswith(
        "update JetPack as a whole"
    )


def test_tensorrt_11_wants_what_converts_a_file() -> None:
    eleven = replace(PC, tensorrt=known("11.4.1.2", "import tensorrt"))
    problem = only(eleven, "conversion-missing")
    assert problem.message.endswith("needs onnx and onnxconverter-common")
    assert problem.remedy == "pip install 'edgeinfer[build]'"
    assert backend(eleven) == "tensorrt", "an FP16 file is built as it is"
    half = replace(eleven, onnx=known("1.20.0"))
    assert only(half, "conversion-missing").message.endswith("needs onnxconverter-common")
    assert "conversion-missing" not in codes(replace(half, onnxconverter_common=known("1.16.0")))
    assert "conversion-missing" not in codes(replace(eleven, live=False)), "what a Python there would have is unknown"
    assert "conversion-missing" not in codes(PC)
