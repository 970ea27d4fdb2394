"""What happens in a source's own process: it is opened and read as in ours, its pictures go into borrowed memory."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgeinfer import frames
from edgeinfer.config import plugins
from edgeinfer.contract import breach
from edgeinfer.errors import ConfigError, StalledError
from edgeinfer.interfaces import Decoding, Source, UnreadableItem
from edgeinfer.isolation import talk
from edgeinfer.isolation.borrowed import Borrowed
from edgeinfer.isolation.errors import to_plain
from edgeinfer.isolation.portrait import described
from edgeinfer.pictures.host import HostSurface
from edgeinfer.types import Capture, Image, Picture

_here: list[bool] = []


def serving() -> bool:
    """Whether this process was made for one source."""
    return bool(_here)


def serve(peer: socket.socket) -> None:
    """Talks with the parent until either has had enough."""
    _here.append(True)
    with contextlib.suppress(talk.Gone, talk.Nonsense):
        try:
            _serve(peer)
        except (talk.Gone, talk.Nonsense):
            raise
        except BaseException as error:  # a plugin's sys.exit too: the parent must hear what it was
            talk.send(peer, to_plain(error))


def _serve(peer: socket.socket) -> None:
    borrowed = Borrowed(peer)
    frames.pool.supply = borrowed
    order, _ = talk.receive(peer, None)
    with contextlib.closing(_opened(order["open"])) as source:
        talk.send(peer, {"opened": _introduced(source)})
        while True:
            order, _ = talk.receive(peer, None)
            borrowed.take_back(order)
            talk.send(peer, _picture(source, borrowed))


def _opened(wanted: dict[str, Any]) -> Source:
    module = plugins.load("sources", wanted["plugin"])
    source: Source = module.open(wanted["uri"], msgspec.json.decode(wanted["options"], type=module.Options))
    return source


def _introduced(source: Source) -> dict[str, Any]:
    """What there is to know of an open source."""
    known = {"live": bool(source.live), "fps": float(source.fps)}
    if not isinstance(source, Decoding):
        return known
    return {**known, "decoder": {"name": source.decoder.name, "why": source.decoder.why}}


def _picture(source: Source, borrowed: Borrowed) -> dict[str, Any]:
    """The answer to `read`. What ends the source is raised."""
    try:
        capture = source.read()
    except (StalledError, UnreadableItem) as error:
        return to_plain(error)
    return {"end": True} if capture is None else _described(capture, borrowed)


def _described(capture: Capture, borrowed: Borrowed) -> dict[str, Any]:
    if fault := breach(capture):
        raise ConfigError(
            f"what it gave breaks the contract of a source: {fault}",
            "its plugin must give a Capture with a C-contiguous (height, width, 3) uint8 image and times in ns",
        )
    picture = _lendable(capture.picture, borrowed)
    block, dropped = borrowed.give(_memory(picture))
    return {
        "picture": described(picture, block),
        "drop": dropped,
        "t_ns": capture.t_ns,
        "t_mono_ns": capture.t_mono_ns,
        "clock": capture.clock,
        "t_media_ns": capture.t_media_ns,
        "seen": capture.seen,
    }


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
