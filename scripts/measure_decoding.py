"""Measures what sources cost: the daemon plays N files, or N cameras of an RTSP server here, of 720p H.264 at 30 fps.

    scripts/measure_decoding [files|rtsp] [N] [SECONDS]

Runs with one source and with N, and prints what each more of them takes: threads, and proportional set size (PSS), of
the daemon and the processes that it started; then CPU time a frame with N, all of it included; the rate; and what was
dropped. The network is a tiny one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from measure_sources import tiny_model

from edgeinfer.sources.demo import Demo, Options
from tests.rtsp_server import RtspServer

WARM_S = 6.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the daemon and its processes, over a while."""

    threads: int
    pss: int
    cpu_s: float
    captured: int
    inferred: int
    dropped: int


def main(kind: str, count: int, seconds: float) -> int:
    """Returns 0."""
    with tempfile.TemporaryDirectory() as folder:
        clip, model = Path(folder) / "clip.mp4", tiny_model(Path(folder))
        write_clip(clip, b_frames=0 if kind == "rtsp" else 2)
        with uris(kind, clip) as uri:
            one, many = (measure(kind, uri, n, model, seconds) for n in (1, count))
    more = max(1, count - 1)
    print(f"{kind}: {count} × 1280 × 720 at 30 fps for {seconds:g} s")
    print(
        f"each more: {(many.threads - one.threads) / more:.1f} threads, {(many.pss - one.pss) / more / 1e6:.1f} MB PSS"
    )
    print(f"in all: {many.threads} threads, {many.pss / 1e6:.0f} MB PSS")
    print(f"CPU: {many.cpu_s / max(1, many.captured) * 1e3:.2f} ms a frame, {many.cpu_s / seconds:.2f} cores")
    print(
        f"frames: {many.captured / seconds / count:.1f} a second each, {many.inferred} results, {many.dropped} dropped"
    )
    return 0


def write_clip(path: Path, b_frames: int) -> None:
    """Ten seconds of real pictures as cameras and editors encode them, about 3 Mbit/s."""
    camera = Demo(Options(realtime=False))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "30", "bf": str(b_frames), "b": "3000000"}
        for index in range(300):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(camera.render(index), format="bgr24")))
        container.mux(stream.encode(None))


@contextlib.contextmanager
def uris(kind: str, clip: Path) -> Iterator[str]:
    """What every source is to open."""
    if kind == "files":
        yield str(clip)
        return
    server = RtspServer(clip.parent)
    server.start()
    try:
        yield server.url()
    finally:
        server.kill()


def measure(kind: str, uri: str, count: int, model: Path, seconds: float) -> Cost:
    """The daemon with so many sources, from its sixth second on."""
    args = [arg for n in range(count) for arg in ("--source", f"s{n}={uri}")]
    if kind == "files":
        args += [
            arg for n in range(count) for key in ("realtime", "loop") for arg in ("--set", f"sources.s{n}.{key}=true")
        ]
    told = Path(model.parent) / f"status-{count}.jsonl"
    args += ["--model", str(model), "--set", "publish=null", "--jsonl", str(told)]
    args += ["--set", "sinks.jsonl.kinds=[status]"]
    command = [sys.executable, "-m", "edgeinfer", "run", *args]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 (our own)
    try:
        time.sleep(WARM_S + count / 4)
        before, books = cpu_s(process.pid), counted(told)
        time.sleep(seconds)
        used, now = cpu_s(process.pid) - before, counted(told)
        family = tree(process.pid)
        threads, pss = sum(each.num_threads() for each in family), sum(each.memory_full_info().pss for each in family)
    finally:
        process.terminate()
        process.wait(30)
    return Cost(threads, pss, used, *(b - a for a, b in zip(books, now, strict=True)))


def tree(pid: int) -> list[psutil.Process]:
    """The daemon and all its processes."""
    daemon = psutil.Process(pid)
    return [daemon, *daemon.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Seconds of CPU that they have used so far."""
    return sum(sum(each.cpu_times()[:2]) for each in tree(pid))


def counted(told: Path) -> tuple[int, int, int]:
    """Frames captured, with a result, and dropped so far, over all sources."""
    latest: dict[str, tuple[int, int, int]] = {}
    for line in told.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError):
            message = json.loads(line)
            latest[message["source"]] = (message["captured"], message["inferred"], message["dropped"])
    rows = [row for source, row in latest.items() if source.startswith("s")]
    return sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


if __name__ == "__main__":
    given = [*sys.argv[1:], *("files", "16", "20")[len(sys.argv) - 1 :]]
    sys.exit(main(given[0], int(given[1]), float(given[2])))
