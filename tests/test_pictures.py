"""Pictures from files: their size by their header, against OpenCV's own; and files that are none."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.config.card import load_model
from edgeinfer.errors import InputError
from edgeinfer.frames import block_of
from edgeinfer.guard.limits import MAX_DECODING_BYTES, MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.preprocess.picture import picture_input
from edgeinfer.sources import video
from edgeinfer.sources._header import size
from edgeinfer.sources._picture import DECODING_BYTES_A_PIXEL, Room, read_picture

SIDES = st.integers(1, 70)
EXIF = b"\xff\xe1" + struct.pack(">H", 34) + b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""Orientation 6: to be turned by a quarter (CIPA DC-008, 4.6.4)."""


def encoded(height: int, width: int, suffix: str, *settings: int) -> bytes:
    picture = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    ok, data = cv2.imencode(suffix, picture, settings)
    assert ok
    return data.tobytes()


@given(SIDES, SIDES, st.sampled_from([".png", ".jpg"]), st.booleans(), st.binary(max_size=20))
@settings(deadline=None)
def test_the_size_is_that_which_opencv_finds(height: int, width: int, suffix: str, slow: bool, note: bytes) -> None:
    data = encoded(height, width, suffix, *((cv2.IMWRITE_JPEG_PROGRESSIVE, int(slow)) if suffix == ".jpg" else ()))
    if suffix == ".jpg":  # a comment before the size, and fill bytes
        data = data[:2] + b"\xff\xff\xfe" + struct.pack(">H", 2 + len(note)) + note + data[2:]
    assert size(data) == (height, width)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_have_a_size_or_none(data: bytes, start: bytes) -> None:
    found = size(start + data)
    assert found is None or len(found) == 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_a_picture_lies_in_the_pool_and_is_what_opencv_reads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(encoded(40, 60, suffix))
    image = read_picture(path, 1 << 20)
    assert (image == cv2.imread(str(path))).all()
    assert block_of(image) is not None


def test_a_picture_that_is_to_be_turned_is(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    data = encoded(40, 60, ".jpg")
    path.write_bytes(data[:2] + EXIF + data[2:])
    image = read_picture(path, 1 << 20)
    assert image.shape == (60, 40, 3)
    assert (image == cv2.imread(str(path))).all()


def test_a_size_that_the_header_does_not_hold_to_is_no_picture_or_the_true_one(tmp_path: Path) -> None:
    data = bytearray(encoded(40, 60, ".jpg"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 2] = struct.pack(">H", 30)
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert read_picture(path, 1 << 20).shape == (30, 60, 3)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\0\x03" + bytes(20)])
def test_what_is_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableItem):
        read_picture(path, 1 << 20)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.png"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableItem, match="no regular file"):
        read_picture(pipe, 1 << 20)
    with pytest.raises(InputError, match="no regular file"):
        video.open(str(pipe), video.Options())
    with pytest.raises(InputError, match="can't be read as a picture"):
        picture_input(pipe, load_model("nanodet-g").card.input)


def test_pictures_are_decoded_while_there_is_room() -> None:
    room, go, inside = Room(100), threading.Event(), list[int]()

    def take(wanted: int) -> None:
        with room.taken(wanted):
            inside.append(wanted)
            assert go.wait(20)

    with ThreadPoolExecutor(3) as others:
        tasks = [others.submit(take, wanted) for wanted in (60, 1000, 60)]
        with pytest.raises(NotYet):
            tasks[1].result(0.1)
        assert len(inside) == 1, "there is room for one of them"
        go.set()
        for task in tasks:
            task.result(20)
    assert sorted(inside) == [60, 60, 1000], "whoever wants more than there is has all of it"


def test_the_largest_picture_has_room() -> None:
    assert DECODING_BYTES_A_PIXEL * MAX_PIXELS <= MAX_DECODING_BYTES


DECODES = """
import os, sys
import cv2, numpy as np
from edgeinfer.guard.confine import confine
data = np.frombuffer(open(sys.argv[1], "rb").read(), np.uint8)
cv2.imdecode(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1], cv2.IMREAD_COLOR)
confine(int(sys.argv[2]), parent=os.getppid())
sys.exit(cv2.imdecode(data, cv2.IMREAD_COLOR) is None)
"""
SLOWLY = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "how", "turned"),
    [(".jpg", (), False), (".jpg", (), True), (".jpg", SLOWLY, False), (".jpg", SLOWLY, True), (".png", (), False)]
    + [(suffix, (), False) for suffix in (".bmp", ".webp", ".tiff")],
)
def test_decoding_takes_no_more_than_is_counted(
    tmp_path: Path, suffix: str, how: tuple[int, ...], turned: bool
) -> None:
    """What OpenCV has at once: the picture, its copy, and a progressive JPEG's coefficients."""
    height, width = 3000, 4000
    data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8), how)[1].tobytes()
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data[:2] + EXIF + data[2:] if turned else data)
    memory = DECODING_BYTES_A_PIXEL * height * width + len(data) + (4 << 20)
    command = [sys.executable, "-c", DECODES, str(path), str(memory)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
