"""Packets → pictures, on the CPU, with FFmpeg."""

from __future__ import annotations

import os
from typing import Any

import av
import numpy as np

from edgeinfer.errors import CameraError
from edgeinfer.frames import pool
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.sources._packets import check_size
from edgeinfer.types import Image

MAX_THREADS = 4
"""For the slices of one picture; cameras rarely send more, and each thread has a stack."""


class PictureDecoder:
    """Decodes the packets of one `av` stream. `url` is the camera for errors."""

    def __init__(self, url: str, stream: Any) -> None:
        self._url = url
        self._context = stream.codec_context
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        stream.thread_type = "SLICE"  # threads per frame would hold frames back

    def decode(self, packet: Any, key_frames_only: bool) -> list[Any]:
        """The pictures that this packet completes, as `av` frames; what is damaged is left out. Raises CameraError."""
        self._context.skip_frame = "NONKEY" if key_frames_only else "DEFAULT"
        try:
            return list(self._context.decode(packet))
        except av.error.InvalidDataError:
            return []  # until the next key frame
        except av.error.FFmpegError as error:
            text = f"{self._url}: can't be decoded: {error.strerror}"
            raise CameraError("codec", text, lasting=True) from None

    def image(self, picture: Any) -> Image:
        """A picture in BGR, copied once, into memory that is used again. Raises CameraError, UnreadableItem."""
        check_size(self._url, picture.width, picture.height)
        if picture.is_corrupt:
            raise UnreadableItem(f"{self._url}: a damaged picture")
        plane = picture.reformat(format="bgr24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: picture.height, : picture.width * 3]
        image = pool.empty(picture.height, picture.width)
        np.copyto(image.reshape(picture.height, -1), rows)
        return image
