"""What happens to the daemon's own processes: killed and stopped at random, as the kernel and people do. Programs."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress

import psutil


def _one(daemon: psutil.Process, rng: random.Random) -> psutil.Process | None:
    """A process of the daemon's; now and then the one that the others are forked from."""
    own = daemon.children()
    others = [child for child in daemon.children(recursive=True) if child not in own]
    found = own if not others or rng.random() < 0.15 else others
    return rng.choice(found) if found else None


def kill(daemon: int, seed: int, every_s: float) -> None:
    """Kills one after another."""
    rng, process = random.Random(seed), psutil.Process(daemon)
    while True:
        with suppress(psutil.Error):
            if victim := _one(process, rng):
                victim.kill()
        time.sleep(every_s)


def stop(daemon: int, seed: int, every_s: float) -> None:
    """Stops one after another; they stay so."""
    rng, process = random.Random(seed), psutil.Process(daemon)
    while True:
        with suppress(psutil.Error):
            if victim := _one(process, rng):
                victim.send_signal(signal.SIGSTOP)
        time.sleep(every_s)
