"""Sources in a process that several share, and what becomes of those that turn out not to be for it."""

from __future__ import annotations

import logging
from collections import deque

from edgeinfer.codecs.decoder import Elsewhere
from edgeinfer.errors import CameraError
from edgeinfer.isolation.house import house
from edgeinfer.isolation.slots import Slots
from edgeinfer.isolation.source import IsolatedSource, Order, Patience, open_isolated
from edgeinfer.types import Capture

log = logging.getLogger(__name__)

HEED = 256
"""After so many reads it is asked what the processes have said."""
MAX_ELSEWHERE = 256
_elsewhere: dict[tuple[str, str], str] = {}
"""Sources of which it turned out when they were read, and why; by plugin and URI."""
_told: deque[str] = deque(maxlen=MAX_ELSEWHERE)


def open_sharing(order: Order, what: str, patience_s: Patience) -> IsolatedSource:
    """A source, opened in a process that sources share, or in one of its own where that can't decode it.

    See `open_isolated` for the rest.
    """
    why = _elsewhere.get((order.plugin, order.uri), "")
    if not why:
        try:
            return SharedSource(order, what, patience_s)
        except Elsewhere as error:
            why = str(error)
            _tell(what, why)
    return open_isolated(order, what, patience_s, instead=why)


class SharedSource(IsolatedSource):
    """One in a process that sources share. Where its first packets show that it can't be there, it is opened again."""

    def __init__(self, order: Order, what: str, patience_s: Patience) -> None:
        guest = house.enter(order.plugin)
        self._order, self._reads = order, 0
        super().__init__(guest, order.to_plain(), what, patience_s, slots=Slots(guest.is_gone))

    def read(self) -> Capture | None:
        """See `Source.read`."""
        self._reads += 1
        if self._reads % HEED == 0:
            house.heed()
        try:
            return super().read()
        except Elsewhere as error:
            if len(_elsewhere) >= MAX_ELSEWHERE:
                _elsewhere.clear()
            _elsewhere[self._order.plugin, self._order.uri] = str(error)
            _tell(self._what, str(error))
            raise CameraError("codec", f"{self._what}: NVDEC: {error}", "it is opened again without it") from None


def _tell(what: str, why: str) -> None:
    """Once for each reason: a camera that comes and goes would say it again and again."""
    level = logging.DEBUG if why in _told else logging.WARNING
    _told.append(why)
    log.log(level, "%s: decoded on the CPU, in a process of its own: NVDEC: %s", what, why)
