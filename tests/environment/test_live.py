"""The running machine: what its libraries answer, and what happens when they do not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.environment import Environment, live, probe
from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.facts import Note
from edgeinfer.environment.rules import find_problems
from edgeinfer.environment.tree import Tree

Answers = dict[str, list[list[Any]]]

H200: Answers = {
    "cuda": [
        ["cuda_driver", "13.0", "CUDA driver"],
        ["gpu_count", 1, "CUDA driver"],
        ["gpu", "NVIDIA H200", "CUDA driver"],
        ["compute_capability", "9.0", "CUDA driver"],
        ["sm_count", 132, "CUDA driver"],
        ["integrated", False, "CUDA driver"],
        ["gpu_memory", 150109880320, "CUDA driver"],
    ],
    "nvml": [
        ["driver", "580.159.04", "NVML"],
        ["cuda_driver", "13.0", "NVML"],
        ["gpu", "NVIDIA H200", "NVML"],
        ["compute_capability", "9.0", "NVML"],
        ["gpu_memory", 150754820096, "NVML"],
    ],
    "cudart": [["cuda_runtime", "13.0", "libcudart.so.13", False]],
    "onnxruntime": [
        ["onnxruntime", "1.30.0", "import"],
        ["onnxruntime_providers", ["CPUExecutionProvider"], "import"],
    ],
}
"""What a machine with an H200 answered to these very calls."""


def machine(answers: Answers, codes: dict[str, int | None] | None = None) -> live.Run:
    """A machine whose libraries answer so, and whose child processes end so."""

    def run(command: list[str], stdin: str, timeout: float) -> live.Output:
        if command[0] == "nvpmodel":
            raise FileNotFoundError(2, "No such file or directory")
        question = command[-1]
        lines = "".join(json.dumps(answer) + "\n" for answer in answers.get(question, []))
        return live.Output(lines, (codes or {}).get(question, 0))

    return run


def diagnose(answers: Answers, codes: dict[str, int | None] | None = None) -> tuple[Environment, set[str], str | None]:
    env = probe(run=machine(answers, codes))
    problems = find_problems(env)
    return env, {problem.code for problem in problems}, judge(env, problems).backend


def with_tensorrt(*, version: str = "10.3.0") -> Answers:
    exact = version.count(".") >= 3
    found: list[list[Any]] = [
        ["tensorrt", version, "import tensorrt", exact],
        ["tensorrt_module", "/x/tensorrt", "import tensorrt"],
    ]
    return {**H200, "tensorrt": [*found, ["dla_cores", 0, "TensorRT runtime"]]}


def test_a_gpu_and_tensorrt() -> None:
    env, codes, backend = diagnose(with_tensorrt(version="10.16.1.11"))
    assert env.live
    assert (env.gpu.value, env.sm_count.value, env.integrated.value) == ("NVIDIA H200", 132, False)
    assert (env.compute_capability.value, env.driver.value) == ("9.0", "580.159.04")
    assert (env.tensorrt_in_use.value, env.flavour, env.dla_cores.value) == ("10.16.1.11", "tensorrt", 0)
    assert env.onnxruntime_providers.value == ("CPUExecutionProvider",)
    assert backend == "tensorrt"
    assert "no-gpu" not in codes


def test_this_interpreter_is_described() -> None:
    env = probe(run=machine({}))
    assert env.python.value is not None
    assert tuple(map(int, env.python.value.split(".")))[:2] == sys.version_info[:2]
    assert env.arch.value == os.uname().machine


def test_without_a_gpu_onnxruntime_is_used() -> None:
    answers = {name: answer for name, answer in H200.items() if name not in ("cuda", "nvml")}
    _, codes, backend = diagnose(answers)
    assert backend == "onnxruntime"
    assert codes & {"no-gpu", "gpu-unreachable"}


def test_hidden_gpus_are_told_apart_from_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answers: Answers = {
        **with_tensorrt(),
        "cuda": [["cuda_driver", "13.0", "CUDA driver"], ["gpu_count", 0, "CUDA driver"]],
    }
    _, codes, backend = diagnose(answers)
    assert "gpu-hidden" in codes
    assert not codes & {"no-gpu", "gpu-unreachable"}
    assert backend == "onnxruntime"


@pytest.mark.parametrize(
    ("code", "told"),
    [(-11, "SIGSEGV"), (None, "no answer in time"), (3, "ended with exit code 3"), (-63, "signal 63")],
)
def test_a_tensorrt_that_dies_on_import_is_a_problem_and_not_used(code: int | None, told: str) -> None:
    env, codes, backend = diagnose(H200, {"tensorrt": code})
    assert any(told in fault.message for fault in env.faults)
    assert "tensorrt-broken" in codes
    assert backend == "onnxruntime"


def test_what_was_said_before_a_crash_is_kept() -> None:
    env, codes, backend = diagnose(with_tensorrt(), {"tensorrt": -11})
    assert env.tensorrt.value is not None
    assert "tensorrt-broken" in codes
    assert backend == "tensorrt"


def test_a_tensorrt_that_lacks_a_library_names_it() -> None:
    message = "ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory"
    env = probe(run=machine({**H200, "tensorrt": [["fault", message]]}))
    (problem,) = (problem for problem in find_problems(env) if problem.code == "tensorrt-broken")
    assert "libnvinfer.so.10" in problem.message
    assert "LD_LIBRARY_PATH" in problem.remedy


def test_no_backend_at_all() -> None:
    _, codes, backend = diagnose({})
    assert backend is None
    assert codes & {
        "onnxruntime-missing",
        "onnxruntime-broken",
    }  # the tests' own Python may have its metadata


def test_a_fault_is_one_line_without_control_characters() -> None:
    env = probe(run=machine({"tensorrt": [["fault", "ImportError: a\n\tb\x1b[2J"]]}))
    assert "ImportError: a b[2J" in [fault.message for fault in env.faults]


def test_a_cut_line_is_no_answer() -> None:
    def run(command: list[str], stdin: str, timeout: float) -> live.Output:
        return live.Output('noise of a start-up hook\n["gpu", "H200", "x"]\n["sm_count", 13', -9)

    tree = Tree(Path("/"))
    notes = list(live.read(tree, run))
    assert Note("gpu", "H200", "x") in notes
    assert not [note for note in notes if note.field == "sm_count"]


def test_an_interpreter_that_cannot_be_started_is_a_fault() -> None:
    def run(command: list[str], stdin: str, timeout: float) -> live.Output:
        raise OSError(12, "Cannot allocate memory")

    assert any("Cannot allocate memory" in fault.message for fault in probe(run=run).faults)


# The real child process.


def ask(question: str, path: list[str], timeout: float = 60) -> live.Output:
    return live.run([sys.executable, "-I", str(live.CHILD), question], json.dumps(path), timeout)


def package(tmp_path: Path, name: str, code: str) -> list[str]:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(code)
    return [str(tmp_path), *sys.path]


def lines(output: live.Output) -> list[list[object]]:
    return [json.loads(line) for line in output.stdout.splitlines()]


def test_child_imports_what_the_parent_would(tmp_path: Path) -> None:
    output = ask("tensorrt", package(tmp_path, "tensorrt", "print('noise')\n__version__ = '10.3.0'\n"))
    assert output.code == 0
    assert lines(output) == [
        ["tensorrt", "10.3.0", "import tensorrt", False],
        ["tensorrt_module", str(tmp_path / "tensorrt"), "import tensorrt"],
    ]


def test_child_takes_the_bindings_where_the_meta_package_is_missing(tmp_path: Path) -> None:
    output = ask("tensorrt_rtx", package(tmp_path, "tensorrt_rtx_bindings", "__version__ = '1.7.1.116'\n"))
    assert lines(output)[0] == ["tensorrt_rtx", "1.7.1.116", "import tensorrt_rtx_bindings", True]


@pytest.mark.parametrize("question", ["tensorrt", "tensorrt_rtx", "onnxruntime"])
def test_what_is_not_installed_is_silent(tmp_path: Path, question: str) -> None:
    stdlib = [path for path in sys.path if "site-packages" not in path and path]
    assert ask(question, [str(tmp_path), *stdlib]) == live.Output("", 0)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ImportError('libx.so: cannot open')", "ImportError: libx.so: cannot open"),
        ("import a_missing_dependency", "ModuleNotFoundError: No module named 'a_missing_dependency'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_package_is_a_fault(tmp_path: Path, code: str, told: str) -> None:
    output = ask("tensorrt", package(tmp_path, "tensorrt", code))
    ((kind, message),) = lines(output)
    assert kind == "fault"
    assert told in str(message)


def test_a_crash_ends_only_the_child(tmp_path: Path) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    assert ask("tensorrt", package(tmp_path, "tensorrt", code)).code == -11


@pytest.mark.slow
def test_a_hanging_import_is_killed_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(600)"
    assert ask("tensorrt", package(tmp_path, "tensorrt", code), timeout=1).code is None


@pytest.mark.slow
def test_the_way_from_python_to_cuda_is_tried_for_real() -> None:
    """Through the product's own code, in a child: a stream was made, or here is why not and what to do."""
    command = [sys.executable, "-I", str(live.CHILD), "access"]
    output = live.run(command, json.dumps(sys.path), live.TIMEOUT_S)
    assert output.code == 0
    ((field, *rest),) = [json.loads(line) for line in output.stdout.splitlines()]
    if field == "fault":
        message, remedy = rest
        assert message
        assert remedy
        assert "Traceback" not in message
    else:
        assert field == "cuda_access"
        assert rest[0].startswith(("cuda-python ", "libcudart.so."))


def test_what_python_says_of_its_way_to_cuda_keeps_its_remedy() -> None:
    answers = {**with_tensorrt(), "access": [["fault", "cuda-python is not installed", "pip install it"]]}
    env, codes, backend = diagnose(answers)
    assert ("cuda-python is not installed", "pip install it") in {(f.message, f.remedy) for f in env.faults}
    assert "cuda-unusable" in codes
    assert backend == "onnxruntime"
    env, codes, backend = diagnose({**with_tensorrt(), "access": [["cuda_access", "libcudart.so.12", "no bindings"]]})
    assert (env.cuda_access.value, backend) == ("libcudart.so.12", "tensorrt")
