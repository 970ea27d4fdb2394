"""Builds beside a daemon's inference on ONNX Runtime: how long they take, and how many frames it serves meanwhile.

A round measures in turn: the builds alone, each way of serving alone, and both together for each way. The builds are
the build child's, which gives way with nice 10, many in a row; serving is the daemon's backend, with as many frames as
it takes. The figures of a round stand beside each other; those of several are told as the median with the least and the
most. Without a GPU the builds are TensorRT-RTX's, which needs none.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from edgeinfer.backends import onnxruntime
from edgeinfer.backends.onnxruntime import Options
from edgeinfer.config.card import load_model
from edgeinfer.engine import toolkit
from edgeinfer.engine.build.construct import Construction
from edgeinfer.engine.build.protocol import BuildRequest
from edgeinfer.engine.options import BuildOptions

ALONE_S = 5.0
CHILD = "--child"
WARM_UP_FRAMES = 10
WAYS = {
    "all cores, spinning": Options(spin=True),
    "all cores": Options(spin=False),
    "thrifty": onnxruntime.thrifty(Options()),
}
"""The first is what a machine of eight cores and more does by itself, the second a smaller one."""


class Server(threading.Thread):
    """Serves frames until it is told to end. `fps` holds what came out from `mark` on."""

    def __init__(self, options: Options) -> None:
        super().__init__(daemon=True)
        self._backend = onnxruntime.open(load_model("nanodet-g"), None, options)
        self._picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        self._ends, self._ready = threading.Event(), threading.Event()
        self.frames = 0

    def run(self) -> None:
        """Keeps every slot in flight."""
        backend, batch = self._backend, [self._picture] * self._backend.max_batch
        while not self._ends.is_set():
            while (slot := backend.acquire()) is not None:
                backend.load(slot, batch)
                backend.submit(slot)
            done = backend.collect(60.0)
            assert done is not None
            self.frames += done.count
            backend.release(done)
            if self.frames >= WARM_UP_FRAMES:
                self._ready.set()
        backend.close()

    def __enter__(self) -> Server:
        self.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join()


def build_s(count: int) -> float:
    """Seconds that so many builds of NanoDet take in one child, one after the other; its start does not count."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, CHILD, work, str(count)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 (ourselves)


def child(work: str, count: int) -> None:
    """Builds as the build child does, and as nice; prints how many seconds it took."""
    os.nice(10)
    kit = toolkit.find()
    request = BuildRequest(
        model=str(load_model("nanodet-g").path),
        flavour=kit.flavour,
        tensorrt=kit.version,
        options=BuildOptions(),
        precision="fp16",
        work=work,
        workspace=work,
        verify=False,
    )
    started = time.monotonic()
    with ExitStack() as stack:
        for _ in range(count):
            Construction(request, kit, lambda _: None, stack).run()
    print(time.monotonic() - started)


def both(options: Options, builds: int) -> tuple[float, float]:
    """Seconds of the builds beside serving, and frames per second of that meanwhile."""
    with Server(options) as server:
        before = server.frames
        seconds = build_s(builds)
        return seconds, (server.frames - before) / seconds


def serving(options: Options) -> float:
    """Frames per second of serving alone."""
    with Server(options) as server:
        before, started = server.frames, time.monotonic()
        time.sleep(ALONE_S)
        return (server.frames - before) / (time.monotonic() - started)


def measure(builds: int) -> dict[str, float]:
    """One round."""
    found = {"build alone, s": build_s(builds)}
    for name, options in WAYS.items():
        found[f"{name}: fps alone"] = serving(options)
        seconds, rate = both(options, builds)
        found[f"{name}: build, s"], found[f"{name}: fps meanwhile"] = seconds, rate
        found[f"{name}: build / alone"] = seconds / found["build alone, s"]
        found[f"{name}: fps meanwhile / alone"] = rate / found[f"{name}: fps alone"]
    return found


def main(rounds: int = 5, builds: int = 20) -> None:
    """Prints each round as it ends, and the figures of all of them."""
    figures = defaultdict[str, list[float]](list)
    for _ in range(rounds):
        found = measure(builds)
        print(" ".join(f"{value:.2f}" for value in found.values()), flush=True)
        for name, value in found.items():
            figures[name].append(value)
    print(f"{rounds} rounds, {builds} builds each, {len(os.sched_getaffinity(0))} cores; load {os.getloadavg()[1]:.1f}")
    for name, values in figures.items():
        print(f"{name:42} {statistics.median(values):6.2f} ({min(values):.2f} … {max(values):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
