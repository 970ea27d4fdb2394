"""A picture from a file: looked at before it is read, and decoded only while there is room for that."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from edgeinfer.frames import pool
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.limits import MAX_DECODING_BYTES, MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.sources._header import size
from edgeinfer.types import Image

HEAD_BYTES = 1 << 16
DECODING_BYTES_A_PIXEL = 9
"""What OpenCV holds at once while it decodes: the picture and a copy of it, and a progressive JPEG's coefficients."""


class Room:
    """So many bytes may be taken at a time by all together. Thread-safe; who comes too late waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Holds `wanted` bytes; whoever wants more than there are in all has all of them."""
        wanted = min(wanted, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + wanted <= self._limit)
            self._taken += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()


_room = Room(MAX_DECODING_BYTES)


def read_picture(path: Path, max_bytes: int) -> Image:
    """The picture, in the pool's memory. Raises UnreadableItem for what is none, and what `FramePool.empty` raises."""
    try:
        with open_anything(path) as file:
            return _read(path, file, max_bytes)
    except OSError as error:
        raise UnreadableItem(f"{path}: {error.strerror or error}") from None


def _read(path: Path, file: BinaryIO, max_bytes: int) -> Image:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableItem(f"{path}: no regular file")
    if status.st_size > max_bytes:
        raise UnreadableItem(f"{path}: larger than {max_bytes} bytes")
    head = file.read(HEAD_BYTES)
    found = size(head)
    pixels = MAX_PIXELS if found is None else found[0] * found[1]
    if pixels > MAX_PIXELS:
        raise _too_large(path)
    with _room.taken(status.st_size + DECODING_BYTES_A_PIXEL * pixels):
        return _decode(path, head + file.read(max_bytes - len(head)))


def _decode(path: Path, data: bytes) -> Image:
    if not data:
        raise UnreadableItem(f"{path}: empty file")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):  # looked up in the header, before memory is taken
            raise _too_large(path) from None
        image = None
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        raise UnreadableItem(f"{path}: not an image that OpenCV can read")
    return pool.copy(np.asarray(image, np.uint8))


def _too_large(path: Path) -> UnreadableItem:
    return UnreadableItem(f"{path}: larger than {MAX_PIXELS / 1e6:.0f} million pixels")
