"""Sinks that write to files: JSON lines and annotated video."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec import structs

from edgeinfer.config.plugins import options
from edgeinfer.errors import ConfigError, EdgeinferError, InputError
from edgeinfer.messages import Detection, InfoMessage, Message, encode
from edgeinfer.sinks import jsonl, video
from tests.test_messages import example


def test_lines_are_appended_as_they_are_published_and_of_the_kinds_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    sink = jsonl.open(jsonl.Options(path=str(path)))
    for kind in ("info", "detections", "status"):
        sink.write(example(kind), None)
    assert path.read_bytes() == b"before\n" + encode(example("detections")) + b"\n", "at once, not at the end"
    sink.close()
    every = jsonl.open(jsonl.Options(path=str(path), kinds=("status", "info")))
    for kind in ("info", "detections", "status"):
        every.write(example(kind), None)
    every.close()
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()[1:]] == ["detections", "info", "status"]


def test_standard_output_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    sink = jsonl.open(jsonl.Options(path="-"))
    sink.write(example("detections"), None)
    sink.close()
    assert raw.getvalue() == encode(example("detections")) + b"\n"
    raw.write(b"still open")


@pytest.mark.parametrize(("number", "code"), [(errno.EMFILE, 75), (errno.ENOMEM, 75), (errno.EACCES, 66)])
def test_lines_that_can_not_be_opened_at_present_may_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def fails(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(jsonl, "LineFile", fails)
    with pytest.raises(EdgeinferError) as caught:
        jsonl.open(jsonl.Options(path=str(tmp_path / "x")))
    assert caught.value.exit_code == code


def test_a_pipe_is_written_to_and_waits_for_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"sinks\.jsonl\.path: .*pipe: No such device or address") as caught:
        jsonl.open(jsonl.Options(path=str(path)))
    assert caught.value.hint == "nobody reads this pipe: start its reader first"
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = jsonl.open(jsonl.Options(path=str(path)))
    sink.write(example("detections"), None)
    assert os.read(reader, 1 << 16).endswith(b"}\n")
    sink.close()
    os.close(reader)


def test_a_path_that_can_be_no_file(tmp_path: Path) -> None:
    for path in (str(tmp_path), f"{tmp_path}/none/x", "a\0b"):
        with pytest.raises(InputError, match=r"sinks\.jsonl\.path"):
            jsonl.open(jsonl.Options(path=path))


@pytest.mark.parametrize("table", [{}, {"path": ""}, {"path": "x", "kinds": ["other"]}])
def test_options_of_json_lines(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sinks\.jsonl\."):
        options(jsonl, table, "sinks.jsonl")


# --- video ---


class Picture:
    """A result with nothing but its picture."""

    def __init__(self, width: int, height: int, grey: int = 0) -> None:
        self.frame = self
        self.image = np.full((height, width, 3), grey, np.uint8)


def write(sink: video.AnnotatedVideo, source: str, picture: Picture) -> None:
    message: Message = structs.replace(example("detections"), source=source)
    sink.write(message, picture)  # type: ignore[arg-type]


def frames_of(path: Path) -> list[tuple[int, ...]]:
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1].shape)
    capture.release()
    return frames


def test_one_source_is_one_file_of_its_first_frames_size(tmp_path: Path) -> None:
    sink = video.open(video.Options(path=str(tmp_path / "out.mp4"), fps=12.5))
    sink.write(example("info"), None)
    sink.write(example("status"), None)
    sink.write(example("detections"), None)
    for size in ((65, 49), (65, 49), (320, 200)):
        write(sink, "front", Picture(*size))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert frames_of(tmp_path / "out.mp4") == [(48, 64, 3)] * 3, "even numbers; later ones are scaled"


def test_several_sources_have_a_file_each(tmp_path: Path) -> None:
    sink = video.open(video.Options(path=str(tmp_path / "out.mp4"), fps=12.5))
    info = example("info")
    assert isinstance(info, InfoMessage)
    sink.write(structs.replace(info, sources=["a", "b"]), None)
    for source in ("a", "b", "a"):
        write(sink, source, Picture(64, 48))
    sink.close()
    assert {path.name: len(frames_of(path)) for path in tmp_path.iterdir()} == {"out-a.mp4": 2, "out-b.mp4": 1}


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    sink = video.open(video.Options(path=str(tmp_path / "out.mp4"), fps=12.5))
    write(sink, "a", Picture(1, 1))
    sink.close()
    assert frames_of(tmp_path / "out.mp4") == [(2, 2, 3)]


def test_a_video_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "good.mp4").touch()
    for name in ("none/x.mp4", "folder.mp4"):
        with pytest.raises(InputError, match="can't be written"):
            video.open(video.Options(path=str(tmp_path / name)))
    for name in ("x.avi", "x", "x.MP4"):
        with pytest.raises(ConfigError, match=r"must end in \.mp4"):
            video.open(video.Options(path=str(tmp_path / name)))
    assert video.open(video.Options(path=str(tmp_path / "good.mp4")))
    with pytest.raises(ConfigError):
        options(video, {"path": "x.mp4", "fps": 0}, "sinks.video")


def test_boxes_are_told_in_pixels_of_the_captured_frame_and_drawn_where_they_are_in_a_smaller_picture(
    tmp_path: Path,
) -> None:
    sink = video.open(video.Options(path=str(tmp_path / "out.mp4"), fps=12.5))
    found = Detection(class_id=0, label="x", score=0.5, box=(320.0, 160.0, 560.0, 320.0))
    message = structs.replace(example("detections"), width=640, height=360, detections=[found])
    sink.write(message, Picture(320, 180))  # type: ignore[arg-type]
    sink.close()
    shown = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1]
    assert shown[120, 280].max() > 60
    assert shown[120, 160].max() > 60, "its edges"
    assert shown[:60].max() < 60
    assert shown[165:].max() < 60
