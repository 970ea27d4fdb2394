"""The stub libraries behave as CUDA does, as far as the product can tell: the same checks can be run on a real GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jetpack import exercise
from tests.jetpack.orin import Orin

ROOT = Path(__file__).parents[2]


def run(board: Orin, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=board.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_what_the_product_relies_on(board: Orin) -> None:
    done = run(board, "-m", "tests.jetpack.exercise")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [word for check in exercise.CHECKS for word in (check.__name__, "ok")]


ASK = """
from edgeinfer.cuda.library import RuntimeLibrary
cuda = RuntimeLibrary("libcudart.so.12")
print(*(int(cuda.cudaMalloc(8)[0]) for _ in range(2)), int(cuda.cudaStreamCreateWithFlags(1)[0]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({}, "0 0 0"),
        ({"cuInit": 100}, "100 100 100"),
        ({"driver": 11040}, "35 35 35"),
        ({"driver": 13000}, "0 0 0"),
        ({"memory": 8}, "0 2 0"),
        ({"cuMemAlloc_v2": 700}, "700 700 700"),
        ({"nodes": "/dev/null:/nowhere/nvmap"}, "801 801 801"),
    ],
)
def test_it_fails_as_it_is_told(board: Orin, settings: dict[str, object], statuses: str) -> None:
    board.set(**settings)
    done = run(board, "-c", ASK)
    assert done.stdout.strip() == statuses, done.stderr
    assert ("NvRmMemInitNvmap failed with No such file" in done.stderr) == (statuses[0] == "8")


@pytest.mark.slow
def test_tensorrt_needs_its_library(board: Orin) -> None:
    tells = "import tensorrt; print(tensorrt.__version__, hasattr(tensorrt, 'Logger'))"
    assert run(board, "-c", tells).stdout == "10.3.0 False\n"
    (board.libraries / "libnvinfer.so.10").unlink()
    said = run(board, "-c", tells).stderr
    assert said.endswith("ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory\n")
