"""Network cameras on this machine: the RTSP server in a process of its own, whose time and memory are not counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeinfer.errors import InputError


@contextmanager
def cameras(clip: Path) -> Iterator[str]:
    """Where each camera is, as long as the block lasts. Raises InputError where it can't play the clip."""
    command = [sys.executable, "-m", "edgeinfer.bench.server", str(clip)]
    with subprocess.Popen(  # noqa: S603 (our own program)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 (asked for)
            line = process.stdout.readline()
            if not line:
                raise InputError(process.communicate()[1].strip() or f"{clip}: the RTSP server did not start")
            yield f"rtsp://127.0.0.1:{int(line)}/camera"
        finally:
            process.kill()
