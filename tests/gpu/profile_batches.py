"""Where the time of a batch goes: python -m tests.gpu.profile_batches [--sources N] [--seconds S] [KEY.PATH=VALUE…]

Needs TensorRT and a GPU; takes about a minute once the engine is in the cache. Shows what the engine does alone; what
the backend does for a thread that does nothing else, given BGR images, surfaces in host memory and surfaces in device
memory; and what the pipeline does from memory, once as it is and once with a profile of its inference thread.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from edgeinfer.backends import tensorrt
from edgeinfer.backends._lane import ContextSlot
from edgeinfer.backends._loading import DeviceLoader
from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.bench.measure import pipeline_run
from edgeinfer.bench.memory import images
from edgeinfer.config.card import load_model
from edgeinfer.config.overrides import parse_override
from edgeinfer.config.settings import load_config
from edgeinfer.daemon.assembly import open_decoder
from edgeinfer.flow.inference import Inference
from edgeinfer.gpu import cuda
from edgeinfer.gpu.cuda import Cuda
from tests.drawn import Drawn, as_nv12, on_device

SHOWN, LAUNCHES = 30, 100
Steps = dict[str, float]


@contextmanager
def timed(steps: Steps, *members: tuple[Any, str]) -> Iterator[None]:
    """Adds the seconds spent in these methods, and the calls of them."""

    def around(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                steps[name] += time.perf_counter() - started
                steps[f"{name} calls"] += 1

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in members:
            patch.setattr(owner, name, around(name, getattr(owner, name)))
        yield


def fed(backend: TensorRt, pictures: Sequence[Any], seconds: float) -> tuple[int, Steps]:
    """Keeps every slot full for so long. How many batches came back, and what the steps took."""
    batches, at, size, steps = 0, 0, backend.max_batch, defaultdict[str, float](float)
    members = [(backend, "load"), (backend, "submit"), (ContextSlot, "wait"), (Cuda, "done"), (Cuda, "upload")]
    readers = {type(lane.reader) for lane in backend._lanes}
    with timed(steps, *members, *((reader, "read") for reader in readers)):
        started, busy = time.perf_counter(), time.thread_time()
        while True:
            going = time.perf_counter() - started < seconds
            slot = backend.acquire() if going else None
            if slot is not None:
                backend.load(slot, [pictures[(at + k) % len(pictures)] for k in range(size)])
                backend.submit(slot)
                at += size
                continue
            done = backend.collect(10.0)
            if done is None:
                break
            backend.release(done)
            batches += 1
        steps["elapsed"], steps["cpu"] = time.perf_counter() - started, time.thread_time() - busy
    return batches, steps


def show_backend(kind: str, backend: TensorRt, pictures: Sequence[Any], seconds: float, size: int) -> None:
    """`size`: the bytes that are copied for a picture."""
    fed(backend, pictures, seconds / 4)
    batches, steps = fed(backend, pictures, seconds)
    fps = batches * backend.max_batch / steps["elapsed"]
    micros = {name: 1e6 * steps[name] / batches for name in ("load", "submit", "wait", "read", "cpu", "elapsed")}
    calls = {name: steps[f"{name} calls"] / batches for name in ("upload", "done")}
    print(
        f"backend alone, {kind:11} {fps:8.0f} fps  {fps * size / 1e9:5.1f} GB/s   µs a batch: "
        + "  ".join(f"{name} {value:.0f}" for name, value in micros.items())
        + "   calls a batch: "
        + "  ".join(f"{name} {value:.1f}" for name, value in calls.items())
        + f"   letterbox kernel {letterbox_us(backend, pictures):.0f} µs",
        flush=True,
    )


def letterbox_us(backend: TensorRt, pictures: Sequence[Any]) -> float:
    """The kernel alone, of a whole batch."""
    lane = backend._lanes[0]
    assert isinstance(lane.loader, DeviceLoader)
    assert lane.loader.kernel is not None
    lane.loader.load([pictures[k % len(pictures)] for k in range(backend.max_batch)], lane.stream)
    lane.loader.record(backend.max_batch, lane.stream)
    lane.finish()
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        lane.loader.kernel(backend.max_batch, lane.stream)
    lane.finish()
    return 1e6 * (time.perf_counter() - started) / LAUNCHES


class Watched:
    """The inference thread's CPU time, and its profile where that is asked for."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self.profile: cProfile.Profile | None = None

    @contextmanager
    def watching(self, profiled: bool) -> Iterator[None]:
        live: Any = Inference.live
        self.profile = cProfile.Profile() if profiled else None

        def watched(stage: Inference) -> None:
            started, busy = time.perf_counter(), time.thread_time()
            try:
                self.profile.runcall(live, stage) if self.profile else live(stage)
            finally:
                self.wall_s, self.cpu_s = time.perf_counter() - started, time.thread_time() - busy

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Inference, "live", watched)
            yield


def show_profile(profile: cProfile.Profile) -> None:
    """What the inference thread did, by its own time, in µs a batch."""
    known: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    batches = next(row[1] for (_, _, name), row in known.items() if name == "submit")
    print(f"inference thread under cProfile, {batches} batches; µs a batch: own, with what it calls; calls a batch")
    for (file, _, name), (_, calls, own, whole, _) in sorted(known.items(), key=lambda item: -item[1][2])[:SHOWN]:
        where = file.rsplit("/", 1)[-1]
        print(f"  {1e6 * own / batches:8.1f} {1e6 * whole / batches:8.1f} {calls / batches:7.1f}  {where} {name}")


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each kind of picture")
    parser.add_argument("--frames", type=int, default=40_000, help="through the pipeline")
    parser.add_argument("--late", type=float, default=cuda.LATE, help="see gpu/cuda.py; 0: always short sleeps")
    parser.add_argument("--switch", type=float, default=sys.getswitchinterval(), help="see sys.setswitchinterval")
    parser.add_argument("settings", nargs="*", metavar="KEY.PATH=VALUE")
    return parser.parse_args()


def show_backends(backend: TensorRt, seconds: float) -> None:
    """Given each kind of picture."""
    pictures, gpu = images(), Cuda()
    surfaces = [as_nv12(image) for image in pictures]
    there = [on_device(gpu, Drawn(surface.width, surface.height), surface.memory) for surface in surfaces]
    show_backend("BGR", backend, pictures, seconds, pictures[0].nbytes)
    show_backend("NV12 host", backend, surfaces, seconds, surfaces[0].memory.nbytes)
    show_backend("NV12 device", backend, [surface for surface, _ in there], seconds, 0)
    backend.close()
    for _, buffer in there:
        buffer.close()


def main() -> None:
    given = arguments()
    cuda.LATE = given.late
    sys.setswitchinterval(given.switch)
    settings = [("backend.name", "tensorrt"), *map(parse_override, given.settings)]
    each = {"uri": "edgeinfer.bench.memory:", "frames": -(-given.frames // given.sources)}
    sources = [(f"sources.s{index}", dict(each)) for index in range(given.sources)]
    config = load_config(None, [("publish.bind", "tcp://127.0.0.1:*"), *settings, *sources])
    model = load_model(config.model.path, config.model.card, config.model.sha256)
    options: Any = config.backend.options
    backend = tensorrt.open(model, config.model.max_batch, options)
    backend.prepare(open_decoder(model, config.model).filter)
    print(f"{backend.name}: {backend.detail}", flush=True)
    show_backends(backend, given.seconds)
    raw, _ = tensorrt.raw_sweep(model, config.model.max_batch, options, images(), 0.3)
    shape, best = max(raw.items(), key=lambda item: item[1])
    print(f"raw engine: {best:.0f} fps ({shape}, streams × batch)", flush=True)
    watched = Watched()
    for profiled in (False, True):
        with watched.watching(profiled):
            run = pipeline_run(config)
        print(
            f"pipeline, {given.sources} sources{', under cProfile' if profiled else ''}: {run.fps:.0f} fps, "
            f"{run.fps / best:.3f} of raw; CPU {run.cpu_ms:.3f} ms a frame; inference thread on a core for "
            f"{100 * watched.cpu_s / watched.wall_s:.0f} % of the time",
            flush=True,
        )
    if watched.profile is not None:
        show_profile(watched.profile)


if __name__ == "__main__":
    main()
