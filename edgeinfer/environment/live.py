"""Asks the libraries of the running machine, each in a child process that is killed if it takes too long."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from edgeinfer.environment import formats, libraries
from edgeinfer.environment.facts import Fault, Note
from edgeinfer.environment.tree import Tree

CHILD = Path(__file__).with_name("child.py")
ACCESS = "CUDA from Python"
QUESTIONS = {
    "cuda": "CUDA driver",
    "nvml": "NVML",
    "cudart": "CUDA runtime",
    "access": ACCESS,
    "tensorrt": "import tensorrt",
    "tensorrt_rtx": "import tensorrt_rtx",
    "onnxruntime": "import onnxruntime",
    "decoding": "NVDEC",
}
TIMEOUT_S = 30.0
"""For one library. Importing TensorRT from a slow SD card takes seconds."""
_GRACE_S = 2.0


class Output(NamedTuple):
    """What a child process wrote, and how it ended: exit code, -signal, or None if it had to be killed."""

    stdout: str
    code: int | None


Run = Callable[[list[str], str, float], Output]
"""(command, stdin, timeout in seconds) → Output. Raises OSError if the command can't be started."""


def run(command: list[str], stdin: str, timeout: float) -> Output:
    """Runs a command; on timeout it is killed, and abandoned if the kernel can't end it."""
    process = subprocess.Popen(  # noqa: S603 (our own script and nvpmodel, no shell)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(stdin.encode(), timeout)
        return Output(out.decode("utf-8", "replace"), process.returncode)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    try:
        out, _ = process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
    return Output(out.decode("utf-8", "replace"), None)


def read(tree: Tree, run: Run = run, timeout: float = TIMEOUT_S) -> Iterator[Note]:
    """Yields what the libraries answer and what this interpreter says of itself; notes faults in `tree`."""
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = list(pool.map(lambda question: _ask(question, run, timeout), QUESTIONS))
    for question, output in zip(QUESTIONS, answers, strict=True):
        yield from _notes(tree, QUESTIONS[question], output)
    yield from _interpreter()
    yield from _installed()
    yield from _power_mode(run)


def _ask(question: str, run: Run, timeout: float) -> Output | str:
    try:
        return run([sys.executable, "-I", str(CHILD), question], json.dumps(sys.path), timeout)
    except OSError as error:
        return f"can't start {sys.executable}: {error.strerror}"


def _notes(tree: Tree, source: str, output: Output | str) -> Iterator[Note]:
    if isinstance(output, str):
        tree.faults.append(Fault(source, output))
        return
    for field, *rest in _lines(output.stdout):
        if field == "fault":
            tree.faults.append(Fault(source, *map(str, rest[:2])))
        elif field == "library":
            name = "tensorrt_rtx" if "tensorrt_rtx" in rest[0] else "tensorrt"
            yield from libraries.library_version(tree, name, str(rest[0]).lstrip("/"))
        else:
            value, *where = rest
            yield Note(field, tuple(value) if isinstance(value, list) else value, *where)
    if output.code != 0:
        tree.faults.append(Fault(source, _ending(output.code)))


def _lines(text: str) -> Iterator[list[Any]]:
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # cut short when the child died, or printed by a start-up hook of this Python
        if isinstance(answer, list) and len(answer) > 1:
            yield answer


def _ending(code: int | None) -> str:
    if code is None:
        return "no answer in time; it was killed"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"crashed with {names.get(-code, f'signal {-code}')}"
    return f"ended with exit code {code}"


def _interpreter() -> Iterator[Note]:
    source = f"this interpreter ({sys.executable})"
    yield Note("python", platform.python_version(), source)
    yield Note("python_venv", sys.prefix != sys.base_prefix, source)
    yield Note("arch", platform.machine(), "kernel")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        yield Note("cuda_visible_devices", visible, "environment")


def _installed() -> Iterator[Note]:
    """What package metadata says, even of packages that do not load."""
    for distribution in metadata.distributions():
        path = getattr(distribution, "_path", None)  # the folder; the public interface does not name it
        if isinstance(path, Path):
            yield from libraries.distributions([path.name], str(path.parent))


def _power_mode(run: Run) -> Iterator[Note]:
    try:
        output = run(["nvpmodel", "-q"], "", 5.0)
    except OSError:
        return
    if mode := formats.power_query(output.stdout):
        yield Note("power_mode", mode, "nvpmodel -q")
