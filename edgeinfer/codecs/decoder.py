"""What every video decoder does, whatever it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edgeinfer.errors import CameraError
from edgeinfer.guard.limits import MAX_PIXELS
from edgeinfer.guard.printable import printable
from edgeinfer.types import DecoderChoice, Picture


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture and where it belongs in its stream, in seconds of the stream's own clock; None where nobody knows."""

    picture: Picture
    time_s: float | None


class Elsewhere(Exception):  # noqa: N818 (no failure of the source)
    """This stream is to be opened again in a process of its own. The text says why, for people."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class VideoDecoder(Protocol):
    """Decodes the packets of one stream. Used by one thread.

    `choice` says what it is and why it was taken.
    """

    choice: DecoderChoice

    @property
    def has_room(self) -> bool:
        """Whether there is memory for another picture without waiting for those that it gave."""

    def decode(self, packet: Any, key_frames_only: bool = False) -> Iterator[Decoded]:
        """The pictures that this packet (PyAV's) completes, in the order in which they are shown.

        What is damaged beyond repair is left out. Raises CameraError where the stream can't be decoded at all,
        UnreadableItem for one bad picture, StalledError where there is no memory for a picture in time.
        """

    def flush(self) -> Iterator[Decoded]:
        """The pictures that are still inside, at the end of the stream."""

    def close(self) -> None:
        """Gives back what it holds; pictures that it gave out stay whole. Called once."""


def check_size(what: str, width: int, height: int) -> None:
    """Raises CameraError for pictures that are larger than any may be."""
    if width * height > MAX_PIXELS:
        raise CameraError("codec", f"{what}: {width} × {height} pixels are too many", lasting=True)


@runtime_checkable
class Restarting(Protocol):
    """What a decoder has besides that is costly to make."""

    def restart(self, stream: Any) -> bool:
        """Goes on with another stream, PyAV's, from its beginning, after `flush`. False where that takes another."""
