"""No input may take more memory than this, whatever it promises."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = 1 << 30
"""Bytes beyond what there is at the start: a picture of 8192 × 8192 and what OpenCV needs besides."""


@pytest.fixture(scope="session", autouse=True)
def _bounded_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (own + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
