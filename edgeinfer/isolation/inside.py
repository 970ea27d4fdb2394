"""What happens in a source's own process: it is opened and read as in ours, its pictures go into borrowed memory."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgeinfer import frames
from edgeinfer.codecs import choice
from edgeinfer.config import plugins
from edgeinfer.contract import breach
from edgeinfer.cuda import video
from edgeinfer.errors import ConfigError, StalledError
from edgeinfer.interfaces import Decoding, PacketSource, Source, UnreadableItem
from edgeinfer.isolation import talk
from edgeinfer.isolation.borrowed import Borrowed
from edgeinfer.isolation.errors import to_plain
from edgeinfer.isolation.packets import plain_facts, plain_packet
from edgeinfer.isolation.portrait import described
from edgeinfer.pictures.host import HostSurface
from edgeinfer.types import Capture, Image, Picture

_here: list[bool] = []


def serving() -> bool:
    """Whether this process was made for one source."""
    return bool(_here)


def serve(peer: socket.socket) -> None:
    """Talks with the parent until either has had enough. All memory for frames comes from there."""
    _here.append(True)
    video.forbid()
    borrowed = Borrowed(peer)
    frames.pool.supply = borrowed
    with contextlib.suppress(talk.Gone, talk.Nonsense):
        try:
            order, _ = talk.receive(peer, None)
            wanted = order["open"]
            if wanted.get("packets"):
                _relay(peer, wanted)
            else:
                _Visit(peer, borrowed).serve(wanted)
        except (talk.Gone, talk.Nonsense):
            raise
        except BaseException as error:  # a plugin's sys.exit too: the parent must hear what it was
            talk.send(peer, to_plain(error))


def _relay(peer: socket.socket, wanted: dict[str, Any]) -> None:
    """Demultiplexes alone: the packets are the parent's to decode."""
    module = plugins.load("sources", wanted["plugin"])
    packets: PacketSource = module.open_packets(wanted["uri"], _options(module, wanted))
    with contextlib.closing(packets):
        talk.send(peer, {"opened": {"stream": plain_facts(packets.facts)}})
        while True:
            talk.receive(peer, None)
            packet = packets.next()
            talk.send(peer, {"packet": plain_packet(packet)})
            talk.send_bytes(peer, packet.data)


class _Visit:
    """One source and its talk."""

    def __init__(self, peer: socket.socket, borrowed: Borrowed) -> None:
        self._peer, self._borrowed = peer, borrowed

    def serve(self, wanted: dict[str, Any]) -> None:
        """Opens it, and reads it as long as it is asked. What ends the source is raised."""
        with contextlib.closing(_opened(wanted)) as source:
            talk.send(self._peer, {"opened": _introduced(source)})
            while True:
                order, _ = talk.receive(self._peer, None)
                self._borrowed.take_back(order)
                talk.send(self._peer, self._answer(source))

    def _answer(self, source: Source) -> dict[str, Any]:
        """The answer to `read`."""
        try:
            capture = source.read()
        except (StalledError, UnreadableItem) as error:
            return to_plain(error)
        return {"end": True} if capture is None else self._told(capture)

    def _told(self, capture: Capture) -> dict[str, Any]:
        if fault := breach(capture):
            raise ConfigError(
                f"what it gave breaks the contract of a source: {fault}",
                "its plugin must give a Capture with a C-contiguous (height, width, 3) uint8 image and times in ns",
            )
        return {
            **self._given(capture.picture),
            "t_ns": capture.t_ns,
            "t_mono_ns": capture.t_mono_ns,
            "clock": capture.clock,
            "t_media_ns": capture.t_media_ns,
            "seen": capture.seen,
        }

    def _given(self, picture: Picture) -> dict[str, Any]:
        lent = _lendable(picture, self._borrowed)
        block, dropped = self._borrowed.give(_memory(lent))
        return {"picture": described(lent, block), "drop": dropped}


def _opened(wanted: dict[str, Any]) -> Source:
    if "instead" in wanted:
        choice.came_from_elsewhere(wanted["instead"])
    module = plugins.load("sources", wanted["plugin"])
    source: Source = module.open(wanted["uri"], _options(module, wanted))
    return source


def _options(module: Any, wanted: dict[str, Any]) -> Any:
    return msgspec.json.decode(wanted["options"], type=module.Options)


def _introduced(source: Source) -> dict[str, Any]:
    """What there is to know of an open source."""
    known = {"live": bool(source.live), "fps": float(source.fps)}
    if not isinstance(source, Decoding):
        return known
    return {**known, "decoder": {"name": source.decoder.name, "why": source.decoder.why}}


def _lendable(picture: Picture, borrowed: Borrowed) -> Image | HostSurface:
    """The picture in borrowed memory; copied where its source made the memory itself, or shows a picture again."""
    whole = picture if isinstance(picture, np.ndarray | HostSurface) else picture.image()
    if borrowed.can_give(_memory(whole)):
        return whole
    if isinstance(whole, np.ndarray):
        return frames.pool.copy(whole)
    memory = frames.pool.bytes(whole.shape.size)
    np.copyto(memory, whole.memory)
    return HostSurface(memory, whole.shape, whole.colour)


def _memory(picture: Image | HostSurface) -> npt.NDArray[np.uint8]:
    return picture if isinstance(picture, np.ndarray) else picture.memory
