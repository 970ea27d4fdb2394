"""Our side of the GPU's memory that a source's process decodes into: lent in slots, read where it lies, lent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeinfer.errors import EdgeinferError
from edgeinfer.gpu import cuda
from edgeinfer.gpu.arena import Arena, arenas
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.guard.limits import MAX_FILE_SLOTS, MAX_PIXELS, MAX_SLOTS
from edgeinfer.interfaces import NoRoom
from edgeinfer.isolation.portrait import LAYOUTS, colour_of
from edgeinfer.isolation.talk import Nonsense, whole
from edgeinfer.pictures.host import Shape
from edgeinfer.types import Colour

DEVICE = "device"
"""The kind of a picture that lies in such memory."""
NOT_YET = "the GPU is not used here so far"
MOST_BYTES = 4 * MAX_PIXELS


class Slots:
    """Of one source's process. Used by the source's thread; surfaces are let go by any.

    A process that writes into a slot which is a picture of ours changes its own picture, and nothing else.
    `unmapped`: whether the process has let go of the memory for good; it is asked once the talk has ended.
    """

    def __init__(self, unmapped: Callable[[], bool]) -> None:
        self._unmapped = unmapped
        self._arena: Arena | None = None

    def freed(self) -> list[int]:
        """Slots that nobody here uses any more, which the process is to be told. Raises NoRoom where it has none."""
        if self._arena is None:
            return []
        free = self._arena.freed()
        if not self._arena.has_room:
            raise NoRoom(f"{self._arena.slots} of its pictures are in use")
        return free

    def lend(self, wanted: object, live: bool) -> dict[str, Any]:
        """The answer to a process that wants room for pictures of so many bytes, in place of what it had.

        Raises Nonsense.
        """
        size = whole({"arena": wanted}, "arena", 1, MOST_BYTES)
        self._give_up(lambda: True)  # a process that asks for other memory has let go of this
        if not cuda.in_use():
            return {"refused": NOT_YET}
        try:
            self._arena = arenas.make(Cuda(), size, MAX_SLOTS if live else MAX_FILE_SLOTS)
        except EdgeinferError as error:
            return {"refused": error.message}
        return {"handle": self._arena.handle.hex(), "slot_bytes": self._arena.slot_bytes, "slots": self._arena.slots}

    def surface(self, picture: dict[str, Any]) -> DeviceSurface:
        """What an answer shows. Raises Nonsense where that is no slot of ours, or does not fit into one."""
        shape, colour = described(picture)
        if self._arena is None or shape.size > self._arena.slot_bytes:
            raise Nonsense("a picture larger than its memory")
        try:
            lease = self._arena.lease(whole(picture, "slot", 0, self._arena.slots - 1))
        except KeyError:
            raise Nonsense("a picture in memory that is not lent") from None
        return DeviceSurface(lease, shape, colour)

    def close(self) -> None:
        """No more pictures come."""
        self._give_up(self._unmapped)

    def _give_up(self, unmapped: Callable[[], bool]) -> None:
        if self._arena is not None:
            self._arena.close(unmapped)
        self._arena = None


def described(picture: dict[str, Any]) -> tuple[Shape, Colour]:
    """How a picture in device memory is laid out, and its colours. Raises Nonsense."""
    width, height = (whole(picture, side, 1, MAX_PIXELS) for side in ("width", "height"))
    if width * height > MAX_PIXELS or picture.get("layout") not in LAYOUTS:
        raise Nonsense("a picture that is none")
    return Shape(picture["layout"], width, height), colour_of(picture)
