"""One video in the making: a second of pictures at a time, each put into the file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path

import cv2

from edgeinfer.guard.limits import MAX_SET_ASIDE
from edgeinfer.guard.outputs import open_output, same_file
from edgeinfer.sinks import _mp4
from edgeinfer.sinks._recovery import Recovery
from edgeinfer.types import Image

FRAGMENT_S = 1.0
MEMORY = "/dev/shm"  # noqa: S108 (a fresh folder of our own is made in it)


class Recording:
    """Writes pictures of `size` (width, height) to `path` at `fps`. Not thread-safe.

    A file that is there already is given another name. Where the disk takes no more, whole seconds are lost.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.recovery = Recovery(f"sinks.video: {path}")
        self._path, self._fps, self._size = path, fps, size
        self._segment: Segment | None = None
        self._descriptor: int | None = None
        self._good_bytes = self._fragments = self._samples = 0

    def add(self, picture: Image) -> None:
        """The next picture; it may be any size. Raises OSError where OpenCV can't encode such a video."""
        if self._segment is None:
            if not self.recovery.due:
                self.recovery.skip()
                return
            try:
                self._segment = Segment(self._fps, self._size)
            except OSError as error:
                if error.errno is None:  # OpenCV can't, and won't later
                    raise
                self.recovery.fail(error)
                return
        self._segment.add(picture)
        if self._segment.count >= max(1, round(self._fps * FRAGMENT_S)):
            self.flush()

    @property
    def late(self) -> bool:
        """Whether pictures have been waiting for as long as a fragment should take."""
        return self._segment is not None and time.monotonic() - self._segment.since_s > FRAGMENT_S

    def flush(self) -> None:
        """Puts what there is into the file, as a fragment. Raises OSError where OpenCV has not encoded it."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        track = segment.finish()
        try:
            self._append(track)
        except OSError as error:
            self._cut()
            self.recovery.fail(error, segment.count)
        else:
            self.recovery.succeed()

    def close(self) -> None:
        """Writes what there is, and closes the file. Raises what `flush` raises."""
        try:
            self.flush()
        finally:
            self._close()

    def _append(self, track: _mp4.Track) -> None:
        if self._descriptor is not None and not same_file(self._path, self._descriptor):
            self._close()
        if self._descriptor is None:
            self._begin(track)
        assert self._descriptor is not None  # noqa: S101 (`_begin` has opened it)
        data = _mp4.fragment(track, self._fragments + 1, self._samples)
        self._cut()
        _write_all(self._descriptor, data, self._good_bytes)
        self._good_bytes += len(data)
        self._fragments += 1
        self._samples += len(track.sizes)

    def _begin(self, track: _mp4.Track) -> None:
        set_aside(self._path)
        self._descriptor = open_output(self._path, os.O_WRONLY | os.O_TRUNC)
        self._good_bytes = self._fragments = self._samples = 0
        head = _mp4.beginning(track, round(self._fps * _mp4.SAMPLE_TICKS))
        try:
            _write_all(self._descriptor, head, 0)
        except OSError:
            self._cut()
            self._close()
            raise
        self._good_bytes = len(head)

    def _cut(self) -> None:
        """Takes half a fragment out of the file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._good_bytes)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Segment:
    """A second of video that OpenCV encodes into memory, beginning with a key frame."""

    def __init__(self, fps: float, size: tuple[int, int]) -> None:
        """Raises OSError where OpenCV can't."""
        self.count, self.since_s = 0, time.monotonic()
        self._size = size
        self._memory = os.memfd_create("edgeinfer-video", os.MFD_CLOEXEC)
        try:
            self._writer = _writer(self._memory, fps, size)
        except OSError:
            os.close(self._memory)
            raise

    def add(self, picture: Image) -> None:
        """The next picture, scaled where it has another size."""
        same = (picture.shape[1], picture.shape[0]) == self._size
        self._writer.write(picture if same else cv2.resize(picture, self._size))
        self.count += 1

    def finish(self) -> _mp4.Track:
        """What has come of it. Raises OSError where it is no video."""
        self._writer.release()
        try:
            return _mp4.read_track(os.pread(self._memory, os.fstat(self._memory).st_size, 0))
        except ValueError as error:
            raise OSError(f"OpenCV has not encoded the video ({error})") from None
        finally:
            os.close(self._memory)


def _writer(memory: int, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """OpenCV chooses the container by the name, and a file in memory has none: it gets one for a moment."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None  # under systemd /tmp may be read-only
    with tempfile.TemporaryDirectory(prefix="edgeinfer-", dir=place) as folder:
        name = Path(folder, "video.mp4")
        name.symlink_to(f"/proc/self/fd/{memory}")
        writer = cv2.VideoWriter(str(name), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV can't write a video of {size[0]} × {size[1]} here")
    return writer


def set_aside(path: Path) -> None:
    """Renames a file that is there already and not empty: out.mp4 to out.1.mp4, or the next free number.

    Raises OSError, also where there are more than MAX_SET_ASIDE.
    """
    if not os.path.lexists(path) or (stat.S_ISREG(path.lstat().st_mode) and not path.stat().st_size):
        return
    for number in range(1, MAX_SET_ASIDE + 1):
        other = path.with_stem(f"{path.stem}.{number}")
        if not os.path.lexists(other):
            path.rename(other)
            return
    raise OSError(f"there are {MAX_SET_ASIDE} earlier videos of that name already")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
