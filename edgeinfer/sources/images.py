"""An image, a folder of images, or a glob of them, in the order of their names."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edgeinfer.config.paths import exists, is_dir
from edgeinfer.config.uri import IMAGE_SUFFIXES
from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_IMAGE_FILE_BYTES
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.sources._picture import read_picture
from edgeinfer.types import Capture, Image

RECONNECT = False


class Options(Struct, frozen=True, kw_only=True):
    """`fps` shows so many a second, at most; `loop` starts again at the end; `max_bytes` bounds a file's size."""

    fps: Annotated[float, Meta(gt=0)] | None = None
    loop: bool = False
    max_bytes: Annotated[int, Meta(ge=1)] = MAX_IMAGE_FILE_BYTES


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
        if self._pacer:
            self._pacer.wait()
        image = self._picture()
        self._good += 1
        place = round(self._given / self.fps * 1e9) if self.fps else None
        self._given += 1
        return stamped(image, "file", place)

    def close(self) -> None:
        """See `Source.close`."""

    def _picture(self) -> Image:
        """The next one. While there is no room for it, it stays the next."""
        try:
            image = read_picture(self._paths[self._next], self._options.max_bytes)
        except UnreadableItem:
            self._next += 1
            raise
        self._next += 1
        return image

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
