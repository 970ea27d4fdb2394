"""A file of lines that never keeps half of one, whatever the disk does and however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec

from edgeinfer.guard.limits import MAX_MESSAGE_BYTES
from edgeinfer.guard.outputs import open_output, same_file

_OURS = b'{"kind":"'
"""How a line of ours begins."""


class LineFile:
    """Appends to `path`: a file, which may be moved away or removed meanwhile, a pipe or a device. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Opens it. Raises OSError."""
        self._path = path
        self._descriptor: int | None = None
        self._regular = self._half = False
        self._open()
        if self._regular:  # held from the first line on: until then another of ours may have to take back half of one
            self.close()

    def append(self, line: bytes) -> None:
        """Writes a line, which ends in a line feed, or nothing. Raises OSError; the next call tries anew."""
        try:
            if self._descriptor is not None and self._regular and not same_file(self._path, self._descriptor):
                self.close()
            self._write(self._open() if self._descriptor is None else self._descriptor, line)
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def close(self) -> None:
        """Closes the file. Raises OSError where the disk refuses only now what was written."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        descriptor = self._descriptor = open_output(self._path, os.O_WRONLY | os.O_APPEND)
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if self._regular:
            _lock(descriptor, fcntl.LOCK_SH)
            self._half = not _mended(descriptor)
        return descriptor

    def _write(self, descriptor: int, line: bytes) -> None:
        data, done = b"\n" + line if self._half else line, 0
        try:
            while done < len(data):
                done += os.write(descriptor, data[done:])
            self._half = False
        except OSError:
            take_back(descriptor, data[:done])
            raise


class StandardOutput:
    """Lines on standard output, not through its buffer: whoever is held up in that holds a lock that the end needs."""

    def __init__(self) -> None:
        sys.stdout.flush()
        buffer: Any = sys.stdout.buffer
        self._raw: io.RawIOBase = getattr(buffer, "raw", buffer)

    def append(self, line: bytes) -> None:
        """See `LineFile.append`. Raises BrokenPipeError where the reader has gone."""
        done = 0
        try:
            while done < len(line):
                count = self._raw.write(line[done:])
                if count is None:  # somebody has made it non-blocking
                    select.select([], [self._raw], [])
                done += count or 0
        except BrokenPipeError:
            raise
        except OSError:
            take_back(self._raw.fileno(), line[:done])
            raise

    def close(self) -> None:
        """It stays open: it is not ours."""


def take_back(descriptor: int, data: bytes) -> None:
    """Cuts off `data` where a file ends with it and nobody else of ours writes to it, as far as that goes."""
    with contextlib.suppress(OSError):
        size = os.fstat(descriptor).st_size
        if data and _end(descriptor, len(data)) == data and _lock(descriptor, fcntl.LOCK_EX):
            os.ftruncate(descriptor, size - len(data))
            if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
                os.lseek(descriptor, size - len(data), os.SEEK_SET)


def _mended(descriptor: int) -> bool:
    """Whether a file ends where a line does. Half a line of ours, of a process that was killed, is cut off first."""
    with contextlib.suppress(OSError):
        end = _end(descriptor, MAX_MESSAGE_BYTES)
        rest = end[end.rfind(b"\n") + 1 :]
        if rest.startswith(_OURS) and not _is_json(rest):
            take_back(descriptor, rest)
        return _end(descriptor, 1) in (b"", b"\n")
    return True  # we may not read it, so nothing is known


def _end(descriptor: int, count: int) -> bytes:
    """The last bytes of a file, so many at most. Raises OSError where there is none or we may not read it."""
    reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(reader)
        if not stat.S_ISREG(status.st_mode):
            return b""
        return os.pread(reader, min(count, status.st_size), max(0, status.st_size - count))
    finally:
        os.close(reader)


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _lock(descriptor: int, kind: int) -> bool:
    """Tells other daemons that we write here, or that we are about to cut. Whether they let us."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
