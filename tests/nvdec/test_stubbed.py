"""`tests/gpu/test_nvdec.py` on the stub driver, with FFmpeg in NVDEC's place: a run of pytest in that environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jetpack import stubs
from tests.nvdec import machine


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_of_it(tmp_path: Path) -> None:
    if reason := stubs.why_not():
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/test_nvdec.py"],
        cwd=machine.ROOT,
        env=machine.make(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout.splitlines()[-1].replace("1 skipped", "")
