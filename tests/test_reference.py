"""The pipeline finds what a plain loop finds, frame for frame, however it batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeinfer.sources.demo import Demo, Options
from tests.conftest import CLIP_FRAMES, Cli
from tests.reference import SCORE, detect, iou, video_frames

ROUNDING = 0.03  # three times the most that was seen


def run_to_lines(cli: Cli, *args: str) -> list[dict[str, Any]]:
    process = cli("run", "--jsonl", "-", "--set", "publish=null", *args)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def assert_same(found: list[dict[str, Any]], expected: list[tuple[int, float, list[float]]]) -> None:
    assert len(found) == len(expected)
    for item, (class_id, score, box) in zip(found, expected, strict=True):
        assert item["class_id"] == class_id
        assert item["score"] == pytest.approx(score, abs=1e-4)
        assert item["box"] == pytest.approx(box, abs=0.01)


def assert_alike(found: list[dict[str, Any]], expected: list[tuple[int, float, list[float]]]) -> None:
    """As far as pictures allow that differ by one level of 255 here and there, which is how often both are rounded."""
    for item in found:
        near = [e for e in expected if e[0] == item["class_id"] and iou(e[2], item["box"]) >= 0.9]
        assert item["score"] < SCORE + ROUNDING or any(abs(item["score"] - e[1]) < ROUNDING for e in near)
    for class_id, score, box in expected:
        same = [i for i in found if i["class_id"] == class_id and iou(i["box"], box) >= 0.9]
        assert score < SCORE + ROUNDING or any(abs(i["score"] - score) < ROUNDING for i in same)


@pytest.fixture(scope="module")
def expected(clip: Path) -> list[list[tuple[int, float, list[float]]]]:
    """What the plain loop finds in each frame of the clip."""
    return [detect(image) for image in video_frames(clip)]


@pytest.mark.long
@pytest.mark.parametrize("max_batch", [1, 4])
def test_every_frame_of_two_videos(
    cli: Cli, clip: Path, expected: list[list[tuple[int, float, list[float]]]], max_batch: int
) -> None:
    lines = run_to_lines(cli, "--source", f"a={clip}", "--source", f"b={clip}", "--set", f"model.max_batch={max_batch}")
    assert any(expected)
    for source in ("a", "b"):
        mine = [line for line in lines if line["source"] == source]
        assert [line["seq"] for line in mine] == list(range(CLIP_FRAMES))
        assert [line["frame_id"] for line in mine] == list(range(CLIP_FRAMES))
        for line, frame in zip(mine, expected, strict=True):
            assert_alike(line["detections"], frame)


def test_every_picture_of_a_folder(cli: Cli, photos: Path) -> None:
    lines = run_to_lines(cli, "--source", f"p={photos}")
    paths = sorted(photos.iterdir())
    assert len(lines) == len(paths)
    for line, path in zip(lines, paths, strict=True):
        image = cv2.imread(str(path))
        assert image is not None
        assert (line["height"], line["width"]) == image.shape[:2]
        assert_same(line["detections"], detect(image))


@pytest.mark.long
def test_the_demo_shows_what_it_says(cli: Cli) -> None:
    lines = run_to_lines(cli, "--source", "demo:", "--set", "sources.demo.realtime=false", "--frames", "300")
    camera = Demo(Options(realtime=False))
    assert [line["frame_id"] for line in lines] == list(range(300))
    hits = 0
    for line in lines:
        label, box = camera.truth(line["frame_id"])
        hits += any(item["label"] == label and iou(item["box"], box) >= 0.5 for item in line["detections"])
    assert hits >= 0.95 * len(lines)
