"""What happens in a source's own process: it is opened and read as in ours, its pictures go into borrowed memory."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec

from edgeinfer import frames
from edgeinfer.codecs import choice
from edgeinfer.config import plugins
from edgeinfer.contract import breach
from edgeinfer.errors import ConfigError, StalledError
from edgeinfer.gpu import leases
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.interfaces import Decoding, Source, UnreadableItem
from edgeinfer.isolation import talk
from edgeinfer.isolation.borrowed import Borrowed
from edgeinfer.isolation.borrowed_slots import BorrowedSlots
from edgeinfer.isolation.errors import to_plain
from edgeinfer.types import Capture

_here: list[bool] = []


def serving() -> bool:
    """Whether this process was made for sources."""
    return bool(_here)


def serve(peer: socket.socket) -> None:
    """Talks with the parent about one source until either has had enough. All memory for frames comes from there."""
    borrowed = Borrowed(peer)
    frames.pool.supply = borrowed
    visit(peer, borrowed)


def visit(peer: socket.socket, borrowed: Borrowed) -> None:
    """The same in a process that has other sources, too: `borrowed` supplies this thread alone."""
    _here[:] = [True]
    slots = BorrowedSlots(peer)
    with contextlib.suppress(talk.Gone, talk.Nonsense), contextlib.closing(slots), leases.supplied(slots):
        try:
            _Visit(peer, borrowed, slots).serve()
        except (talk.Gone, talk.Nonsense):
            raise
        except BaseException as error:  # a plugin's sys.exit too: the parent must hear what it was
            talk.send(peer, to_plain(error))


class _Visit:
    """One source, its talk and its memory."""

    def __init__(self, peer: socket.socket, borrowed: Borrowed, slots: BorrowedSlots) -> None:
        self._peer, self._borrowed, self._slots = peer, borrowed, slots

    def serve(self) -> None:
        """Opens it, and reads it as long as it is asked. What ends the source is raised."""
        order, _ = talk.receive(self._peer, None)
        with contextlib.closing(_opened(order["open"])) as source:
            talk.send(self._peer, {"opened": _opening(source)})
            while True:
                order, _ = talk.receive(self._peer, None)
                self._borrowed.take_back(order)
                self._slots.take_back(order)
                talk.send(self._peer, self._picture(source))

    def _picture(self, source: Source) -> dict[str, Any]:
        """The answer to `read`."""
        try:
            capture = source.read()
        except (StalledError, UnreadableItem) as error:
            return to_plain(error)
        return {"end": True} if capture is None else self._described(capture)

    def _described(self, capture: Capture) -> dict[str, Any]:
        if fault := breach(capture):
            raise ConfigError(
                f"what it gave breaks the contract of a source: {fault}",
                "its plugin must give a Capture with a C-contiguous (height, width, 3) uint8 image and times in ns",
            )
        return {
            **self._given(capture),
            "t_ns": capture.t_ns,
            "t_mono_ns": capture.t_mono_ns,
            "clock": capture.clock,
            "t_media_ns": capture.t_media_ns,
        }

    def _given(self, capture: Capture) -> dict[str, Any]:
        surface = capture.picture
        if isinstance(surface, DeviceSurface) and self._slots.can_give(surface):
            return {"picture": self._slots.give(surface)}
        image = capture.image
        if not self._borrowed.can_give(image):
            image = frames.pool.copy(image)  # it made the memory itself, or shows the same picture again
        return {**self._borrowed.give(image), "height": image.shape[0], "width": image.shape[1]}


def _opened(wanted: dict[str, Any]) -> Source:
    if "instead" in wanted:
        choice.came_from_elsewhere(wanted["instead"])
    module = plugins.load("sources", wanted["plugin"])
    source: Source = module.open(wanted["uri"], msgspec.json.decode(wanted["options"], type=module.Options))
    return source


def _opening(source: Source) -> dict[str, Any]:
    """What the parent is told of a source that is open."""
    told: dict[str, Any] = {"live": bool(source.live), "fps": float(source.fps)}
    if isinstance(source, Decoding):
        told["decoder"] = [source.decoder.name, source.decoder.why]
    return told
