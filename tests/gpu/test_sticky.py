"""A real illegal address in a real context: the process ends, at once, and says why. Elsewhere it skips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer.errors import EdgeinferError
from edgeinfer.gpu.cuda import Cuda

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def _gpu() -> None:
    try:
        Cuda().stream()
    except EdgeinferError as error:
        pytest.skip(f"needs CUDA and a GPU: {error}")


@pytest.mark.slow
@pytest.mark.usefixtures("_gpu")
def test_a_lost_gpu_ends_the_process_at_once(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)}
    settings = ["--set", "backend.name=tests.faults.gpu", "--set", "publish=null"]
    argv = [sys.executable, "-m", "edgeinfer", "run", "--source", "demo:", *settings]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environ, check=False)
    assert done.returncode == 70, done.stderr
    assert "CUDA error 700" in done.stderr
    crash = json.loads((tmp_path / "edgeinfer" / "last_crash.json").read_text())
    assert crash["code"] == "sticky-cuda-error"
