"""Many sources at 30 pictures a second through NVDEC, in processes that they share: what one costs.

    python -m tests.nvdec.measure [sources] [seconds] [clip]

Each source is a file that this process reads on a thread of its own, at its rate. Told are: pictures per second; time
of the processor a picture, of this process and of those that decode; how long a read takes, from asking for a picture
to having it on the GPU, demultiplexing included; memory (PSS), memory of the GPU and threads a source.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.isolation.sharing import open_sharing
from edgeinfer.isolation.source import IsolatedSource, Order
from edgeinfer.sources import video
from tests.nvdec import clips

FPS = 30
PICTURES = 900
"""Longer than is measured: a file that begins again makes a new session."""


class Reader(threading.Thread):
    """Reads one source at its rate. `took_s`: of each read since `fresh` was called; `on_gpu`: how many were there."""

    def __init__(self, source: IsolatedSource, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._source, self._stopped = source, stop
        self.fresh()

    def fresh(self) -> None:
        """Forgets what was measured so far."""
        self.took_s: list[float] = []
        self.on_gpu = 0

    def run(self) -> None:
        """The thread's life."""
        due_s = time.monotonic()
        while not self._stopped.is_set():
            began_s = time.monotonic()
            capture = self._source.read()
            self.took_s.append(time.monotonic() - began_s)
            self.on_gpu += capture is not None and isinstance(capture.picture, DeviceSurface)
            due_s = max(due_s + 1 / FPS, began_s)
            time.sleep(max(0.0, due_s - time.monotonic()))


def cpu_s(processes: list[psutil.Process]) -> float:
    """Seconds of processor so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def pss_mb(processes: list[psutil.Process]) -> float:
    """Their part of the memory that they share, and their own."""
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def main(count: int = 64, seconds: float = 20.0, clip: str = "") -> None:
    """Measures, and prints."""
    cuda = Cuda()
    with tempfile.TemporaryDirectory() as folder:
        path = clip or str(clips.write(Path(folder) / "720p.mp4", "h264", (1280, 720), PICTURES))
        before = cuda.memory()[0]
        order = Order("video", path, video.Options(loop=True, decoder="nvdec"))
        began_s = time.monotonic()
        sources = [open_sharing(order, f"source {number}", lambda _: 20) for number in range(count)]
        print(f"{count} sources opened in {time.monotonic() - began_s:.1f} s")
        stop = threading.Event()
        readers = [Reader(source, stop) for source in sources]
        for reader in readers:
            reader.start()
        time.sleep(5)
        own, children = psutil.Process(), [psutil.Process(pid) for pid in sorted({one.pid for one in sources})]
        for reader in readers:
            reader.fresh()
        spent = cpu_s([own]), cpu_s(children)
        time.sleep(seconds)
        spent = cpu_s([own]) - spent[0], cpu_s(children) - spent[1]
        took_s = [took for reader in readers for took in list(reader.took_s)]
        on_gpu, pictures = sum(reader.on_gpu for reader in readers), len(took_s)
        p50, p99, most = np.percentile(took_s, [50, 99, 100]) * 1e3
        print(f"{pictures / seconds:.0f} pictures/s of {count * FPS}, {on_gpu / pictures:.1%} of them on the GPU")
        print(f"processor a picture: {spent[0] / pictures * 1e6:.0f} µs here, {spent[1] / pictures * 1e6:.0f} µs there")
        print(f"a read: p50 {p50:.2f} ms, p99 {p99:.2f} ms, at most {most:.1f} ms")
        threads = sum(process.num_threads() for process in children)
        print(
            f"a source: PSS {pss_mb(children) / count:.1f} MB, {threads / count:.2f} threads; {len(children)} processes"
        )
        print(f"the GPU's memory: {(before - cuda.memory()[0]) / count / 1e6:.1f} MB a source")
        stop.set()
        for reader in readers:
            reader.join()
        for source in sources:
            source.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*(kind(text) for kind, text in zip((int, float, str), arguments, strict=False)))
