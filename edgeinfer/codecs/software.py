"""FFmpeg on the CPU, with as few threads as will do: what runs the network needs the cores as well."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from typing import Any

import av

from edgeinfer.codecs.decoder import Decoded, check_size
from edgeinfer.codecs.unpacking import upright
from edgeinfer.errors import CameraError
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.types import DecoderChoice

NAME = "av"


class Cores:
    """Shares the cores among the files that are decoded: two threads each while there are enough. Thread-safe."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._lock = threading.Lock()
        self._streams = 0

    def take(self) -> int:
        """How many threads one more may have."""
        with self._lock:
            self._streams += 1
            return 2 if 2 * self._streams <= self._cores else 1

    def give_back(self) -> None:
        """One of them has come to its end."""
        with self._lock:
            self._streams -= 1


_cores = Cores(os.cpu_count() or 1)


class SoftwareDecoder:
    """See `VideoDecoder`. Of a live stream a picture comes out at once; of others two may be worked on together."""

    has_room = True

    def __init__(self, stream: Any, what: str, live: bool, why: str) -> None:
        """Raises CameraError where FFmpeg has no decoder for PyAV's `stream`."""
        if stream.codec_context is None:
            raise CameraError("codec", f"{what}: no decoder for this stream", "H.264 is what every one has", True)
        self.choice = DecoderChoice(NAME, why)
        self._what, self._live = what, live
        self._time_base = stream.time_base
        self._context = stream.codec_context
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._context.thread_count = 1 if live else _cores.take()
        self._context.thread_type = "AUTO"  # a thread each for pictures: such a one comes out a picture later

    def decode(self, packet: Any, key_frames_only: bool = False) -> Iterator[Decoded]:
        """See `VideoDecoder.decode`. A picture that can't be had raises in its turn; the others are there."""
        self._context.skip_frame = "NONKEY" if key_frames_only else "DEFAULT"
        return map(self._decoded, self._frames(packet))

    def flush(self) -> Iterator[Decoded]:
        """See `VideoDecoder.flush`."""
        return map(self._decoded, self._frames(None))

    def close(self) -> None:
        """See `VideoDecoder.close`."""
        if not self._live:
            _cores.give_back()

    def _frames(self, packet: Any) -> list[Any]:
        try:
            return list(self._context.decode(packet))
        except (av.error.InvalidDataError, av.error.EOFError):
            return []  # until the next key frame, or for good
        except av.error.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                text = f"{self._what}: decoding it takes more memory than it may have"
                raise CameraError("memory", text, "memory_mb allows more") from None
            text = f"{self._what}: can't be decoded: {error.strerror}"
            raise CameraError("codec", text, lasting=True) from None

    def _decoded(self, frame: Any) -> Decoded:
        check_size(self._what, frame.width, frame.height)
        if frame.is_corrupt and self._live:  # a file's is given as FFmpeg has mended it: no other shows that moment
            raise UnreadableItem(f"{self._what}: a damaged picture")
        return Decoded(upright(frame), None if frame.pts is None else float(frame.pts * self._time_base))
