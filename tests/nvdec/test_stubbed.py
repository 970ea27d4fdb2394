"""`tests/gpu/test_nvdec.py` on the stub driver, with FFmpeg in NVDEC's place: a run of pytest in that environment."""

from __future__ import annotations

import json
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
    assert " passed" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_doctor_says_what_decodes_here_and_why(tmp_path: Path) -> None:
    if reason := stubs.why_not():
        pytest.skip(reason)
    environment = machine.make(tmp_path)

    def asked(**settings: str) -> list[str]:
        command = [sys.executable, "edgeinfer/environment/child.py", "decoding"]
        found = subprocess.run(
            command,
            cwd=machine.ROOT,
            env={**environment, **settings},
            input=json.dumps(environment["PYTHONPATH"].split(":") + sys.path),
            capture_output=True,
            text=True,
            check=False,
        )
        answer: list[str] = json.loads(found.stdout)
        return answer

    assert asked() == ["video_decoder", "NVDEC", "PyNvVideoCodec: 7 decoders on this GPU"]
    name, value, why = asked(EDGEINFER_STUB_NVDEC="no libnvcuvid")
    assert (name, value) == ("video_decoder", "FFmpeg, on the CPU")
    assert "libnvcuvid.so.1" in why
    assert "NVIDIA_DRIVER_CAPABILITIES" in why
