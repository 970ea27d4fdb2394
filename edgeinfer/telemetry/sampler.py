"""A thread that reads the sensors: a driver that is slow to answer then holds up nobody."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from msgspec import UNSET, structs

from edgeinfer.environment.tree import Tree
from edgeinfer.messages import MachineVitals
from edgeinfer.telemetry import feeds, sysfs
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.feed import Feed
from edgeinfer.telemetry.governor import Governor

log = logging.getLogger(__name__)

PERIOD_S = 2.0
OVER_CURRENT = "over-current"


class Sampler(threading.Thread):
    """Keeps `machine` current and the governor informed, and posts what that decides."""

    def __init__(self, root: Path, governor: Governor, bulletin: Bulletin) -> None:
        """`root` is where /sys and /proc are."""
        super().__init__(name="telemetry", daemon=True)
        self.machine: MachineVitals | None = None
        self._tree = Tree(root)
        self._governor = governor
        self._bulletin = bulletin
        self._over_current: int | None = None
        self._feeds: list[Feed] = []
        self._closing = threading.Event()

    def run(self) -> None:
        """The thread's life."""
        self._feeds = feeds.usual(self._tree)
        try:
            self._sample_on()
        finally:
            for feed in self._feeds:
                feed.close()

    def _sample_on(self) -> None:
        while not self._closing.is_set():
            try:
                self.sample(time.monotonic())
            except Exception:  # numbers for people must not end what they are about
                log.exception("telemetry: unexpected error; no more is read")
                return
            self._closing.wait(PERIOD_S)

    def sample(self, now_s: float) -> None:
        """Reads everything once."""
        machine = feeds.complete(sysfs.read(self._tree), self._feeds, now_s)
        if self._drew_too_much():
            machine = structs.replace(machine, throttled=[*machine.throttled, OVER_CURRENT])
        self.machine = machine
        if self._governor.update(machine.throttled, hottest(machine), now_s):
            reason = self._governor.reason
            log.warning("%s", reason.text if reason else "the machine is not throttled any more: all frames are used")
            self._bulletin.heat = reason

    def close(self) -> None:
        """Asks the thread to end; it does so after the reading that it is in."""
        self._closing.set()

    def _drew_too_much(self) -> bool:
        events, before = sysfs.over_current_events(self._tree), self._over_current
        self._over_current = events
        return before is not None and events > before


def hottest(machine: MachineVitals) -> str:
    """The warmest zone in words; empty where there is none."""
    if machine.temperatures_c is UNSET or not machine.temperatures_c:
        return ""
    zone, celsius = max(machine.temperatures_c.items(), key=lambda item: item[1])
    return f"{zone} {celsius:.0f} °C"
