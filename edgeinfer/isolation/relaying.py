"""Cameras that are demultiplexed in a process of their own and decoded here; and those that can't be."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from edgeinfer.codecs.decoder import Elsewhere
from edgeinfer.errors import CameraError
from edgeinfer.interfaces import Relaying, Source
from edgeinfer.isolation.nursery import nursery
from edgeinfer.isolation.packets import RelayedPackets
from edgeinfer.isolation.source import Order, Patience, open_isolated
from edgeinfer.types import Capture, DecoderChoice

log = logging.getLogger(__name__)

KEPT_S = 600.0
"""For so long a camera that NVDEC could not decode is not tried again: it may be another one by then."""
MOST = 256
_elsewhere: dict[Order, tuple[str, float]] = {}
"""Why, and until when."""
_told: deque[str] = deque(maxlen=MOST)


def open_relaying(module: Relaying, order: Order, what: str, patience_s: Patience) -> Source:
    """A source of `module`, demultiplexed in a process and decoded here; where it can't be, decoded over there.

    Raises what `open_isolated` and the module's `open_relayed` do.
    """
    why = _known(order)
    if not why:
        packets = RelayedPackets(nursery.fork(order.plugin), order.to_plain(), what, order.uri, patience_s)
        try:
            return Relayed(module.open_relayed(packets, order.options), order, what)
        except Elsewhere as error:
            packets.close()
            why = _remember(order, what, str(error))
        except BaseException:
            packets.close()
            raise
    return open_isolated(order, what, patience_s, instead=why)


class Relayed:
    """See `Source`. One of which it turns out that it can't be decoded here is opened again, over there."""

    live = True

    def __init__(self, source: Any, order: Order, what: str) -> None:
        self._source, self._order, self._what = source, order, what
        self.fps: float = source.fps
        self.decoder: DecoderChoice = source.decoder

    def read(self) -> Capture | None:
        """See `Source.read`."""
        try:
            capture: Capture | None = self._source.read()
        except Elsewhere as error:
            why = _remember(self._order, self._what, str(error))
            raise CameraError("codec", f"{self._what}: NVDEC: {why}", "it is opened again without it") from None
        return capture

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


def _known(order: Order) -> str:
    why, until_s = _elsewhere.get(order, ("", 0.0))
    return why if time.monotonic() < until_s else ""


def _remember(order: Order, what: str, why: str) -> str:
    """And tells of it, once for each reason: a camera that comes and goes would say it again and again."""
    if len(_elsewhere) >= MOST:
        _elsewhere.clear()
    _elsewhere[order] = why, time.monotonic() + KEPT_S
    level = logging.DEBUG if why in _told else logging.WARNING
    _told.append(why)
    log.log(level, "%s: decoded on the CPU, in a process of its own: NVDEC: %s", what, why)
    return why
