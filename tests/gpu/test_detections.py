"""What is found in a video on a real GPU: the same, whatever decodes it and wherever its pictures lie."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_h264
from tests.gpu.test_engine import LEVEL, SOURCES
from tests.reference import iou

FRAMES = 150
SAME = 0.98
"""Of the objects that one finds, so many must be among the other's, at an IoU of 0.9."""

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt") is None, reason="needs TensorRT and a GPU"),
    pytest.mark.skipif(importlib.util.find_spec("PyNvVideoCodec") is None, reason="needs PyNvVideoCodec"),
]


def found(clip: Path, decoder: str, cache: Path) -> dict[int, list[dict[str, Any]]]:
    """Frame number → detections."""
    level = [] if LEVEL is None else ["--set", f"backend.opt_level={LEVEL}"]
    command = [
        sys.executable,
        "-m",
        "edgeinfer",
        "run",
        "--source",
        f"clip={clip}",
        "--jsonl",
        "-",
        "--backend",
        "tensorrt",
    ]
    command += ["--set", f"sources.clip.decoder={decoder}", "--set", "publish=null", *level]
    command += ["--set", f"backend.tactic_sources={json.dumps(SOURCES)}", "--set", f"backend.cache={cache}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ})
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return {line["frame_id"]: line["detections"] for line in lines if line["kind"] == "detections"}


def matched(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> int:
    """How many of `one` are among `other`."""
    return sum(any(a["class_id"] == b["class_id"] and iou(a["box"], b["box"]) >= 0.9 for b in other) for a in one)


def test_nvdec_finds_what_software_finds(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_h264(clip, FRAMES, 1280, 720)
    software, hardware = (found(clip, decoder, tmp_path / "cache") for decoder in ("av", "nvdec"))
    assert software.keys() == hardware.keys() == set(range(FRAMES))
    for one, other in ((software, hardware), (hardware, software)):
        total = sum(map(len, one.values()))
        assert total > FRAMES
        assert sum(matched(one[number], other[number]) for number in one) >= SAME * total
