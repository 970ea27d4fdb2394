"""An image, a folder of images, or a glob of them, in the order of their names."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from msgspec import Meta, Struct

from edgeinfer.config.paths import exists, is_dir
from edgeinfer.config.uri import IMAGE_SUFFIXES
from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.types import Capture

RECONNECT = False


class Options(Struct, frozen=True, kw_only=True):
    """`fps` shows so many a second, at most; `loop` starts again at the end; `max_bytes` bounds a file's size."""

    fps: Annotated[float, Meta(gt=0)] | None = None
    loop: bool = False
    max_bytes: Annotated[int, Meta(ge=1)] = 256 << 20


def open(uri: str, options: Options) -> Images:  # noqa: A001 (the plugin interface)
    """Lists the images. Raises InputError where there is none."""
    return Images(_list(uri), options)


class Images:
    """See `Source`. Where `fps` is given, `t_media_ns` is the number of pictures before it times the period."""

    live = False

    def __init__(self, paths: list[Path], options: Options) -> None:
        self._paths = paths
        self._options = options
        self._next = 0
        self._given = self._good = 0
        self.fps = options.fps or 0.0
        self._pacer = Pacer(options.fps) if options.fps else None

    def read(self) -> Capture | None:
        """See `Source.read`. Raises UnreadableItem for a file that is no image."""
        if self._next == len(self._paths):
            if not self._options.loop:
                return None
            self._next = 0
            self._check_round()
        path = self._paths[self._next]
        self._next += 1
        if self._pacer:
            self._pacer.wait()
        image = _decode(path, self._options.max_bytes)
        self._good += 1
        place = round(self._given / self.fps * 1e9) if self.fps else None
        self._given += 1
        return stamped(image, "file", place)

    def close(self) -> None:
        """See `Source.close`."""

    def _check_round(self) -> None:
        """A loop without one good picture would go round for ever."""
        if not self._good:
            raise InputError(f"{self._paths[0]}: none of {len(self._paths)} pictures can be read")
        self._good = 0


def _list(uri: str) -> list[Path]:
    path = Path(uri)
    if is_dir(path):
        try:
            paths = [entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        missing = f"no images ({' '.join(sorted(IMAGE_SUFFIXES))}) in this folder"
    elif exists(path):
        paths, missing = [path], ""
    elif any(c in uri for c in "*?["):
        paths, missing = [Path(name) for name in glob.glob(uri, recursive=True)], "no file matches"  # noqa: PTH207
    else:
        paths, missing = [], "no such file"
    if not paths:
        raise InputError(f"{uri}: {missing}")
    return sorted(paths)


def _decode(path: Path, max_bytes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        if path.stat().st_size > max_bytes:
            raise UnreadableItem(f"{path}: larger than {max_bytes} bytes")
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableItem(f"{path}: {error.strerror or error}") from None
    image = _imdecode(data, path) if data.size else None
    if image is None:
        raise UnreadableItem(f"{path}: not an image that OpenCV can read" if data.size else f"{path}: empty file")
    return image


def _imdecode(
    data: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], path: Path
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):  # looked up in the header, before memory is taken
            raise UnreadableItem(f"{path}: larger than {MAX_PIXELS / 1e6:.0f} million pixels") from None
        return None
    return None if image is None else np.ascontiguousarray(image, np.uint8)
