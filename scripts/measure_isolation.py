"""Cameras read by threads and by processes of their own, in turn: processor time, memory and the age of pictures.

The cameras are RTSP streams of a real server on this machine (H.264, 1280 × 720, 30 a second), whose own time does not
count. A picture is dropped as soon as it is there. Between rounds of each kind a clip of synthetic pictures is read as
fast as it goes, which shows what handing over alone costs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from edgeinfer.config.settings import load_config
from edgeinfer.daemon.assembly import open_source
from edgeinfer.interfaces import Source
from tests.conftest import write_camera_clip
from tests.rtsp_server import RtspServer

SECONDS = 8.0
WIDTH, HEIGHT = 1280, 720
FIGURES = ("ms of CPU per picture", "MiB of memory, all", "p99 of the age, ms", "synthetic pictures/s")


def opener(uri: str, isolated: bool, **more: object) -> Callable[[], Source]:
    """What opens a source in a process of its own, or here."""
    table = {"uri": uri, "isolated": isolated, **more}
    config = load_config(None, [("sources", {"cam": table})])
    return lambda: open_source(config.sources["cam"], "cam")


def processes() -> list[psutil.Process]:
    """We and our children, without the server."""
    own = psutil.Process()
    children = [child for child in own.children(recursive=True) if "rtsp_server" not in " ".join(child.cmdline())]
    return [own, *children]


def cpu_s() -> float:
    """Processor time of all of us so far; of those that have ended too."""
    return sum(sum(process.cpu_times()[:2]) for process in processes())


def cameras(uri: str, count: int, isolated: bool) -> tuple[float, float, float]:
    """Milliseconds of processor per picture, MiB of memory in all, and the 99th percentile of the age in ms."""
    sources = [opener(uri, isolated, transport="tcp", decoder="av")() for _ in range(count)]
    ages: list[float] = []
    stop = threading.Event()

    def work(source: Source) -> None:
        while not stop.is_set():
            capture = source.read()
            assert capture is not None
            ages.append((time.monotonic_ns() - capture.t_mono_ns) / 1e6)

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    time.sleep(1.0)  # what a stream begins with
    ages.clear()
    before = cpu_s()
    time.sleep(SECONDS)
    spent, seen = cpu_s() - before, list(ages)
    memory = sum(process.memory_full_info().pss for process in processes()) / 2**20
    stop.set()
    for thread, source in zip(threads, sources, strict=True):
        thread.join()
        source.close()
    return spent / len(seen) * 1e3, memory, float(np.percentile(seen, 99))


def as_fast_as_can_be(isolated: bool) -> float:
    """Pictures a second of a source that hardly computes anything."""
    source = opener("demo:", isolated, realtime=False, width=WIDTH, height=HEIGHT)()
    end, count = time.monotonic() + SECONDS / 4, 0
    while time.monotonic() < end:
        source.read()
        count += 1
    source.close()
    return count / SECONDS * 4


def main() -> None:
    """Rounds of each kind in turn; medians, with the least and the most."""
    count, rounds = map(int, (*sys.argv[1:3], *("4", "5")[len(sys.argv) - 1 :]))
    found: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        write_camera_clip(Path(folder) / "clip.mp4", frames=300, size=(WIDTH, HEIGHT))
        server = RtspServer(Path(folder))
        server.start()
        try:
            for _ in range(rounds):
                for isolated, measured in found.items():
                    measured.append((*cameras(server.url(), count, isolated), as_fast_as_can_be(isolated)))
        finally:
            server.kill()
    sys.stdout.write(f"{count} cameras, {rounds} rounds\n")
    for isolated, rows in found.items():
        sys.stdout.write("processes\n" if isolated else "threads\n")
        for what, values in zip(FIGURES, zip(*rows, strict=True), strict=True):
            sys.stdout.write(f"  {what:22}{statistics.median(values):9.2f}  ({min(values):.2f} … {max(values):.2f})\n")


if __name__ == "__main__":
    main()
