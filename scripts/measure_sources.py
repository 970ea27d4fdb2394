"""Measures what a frozen camera costs: the daemon reads three RTSP cameras, of which one is frozen and thawed in turn.

    scripts/measure_sources [ROUNDS]

Prints the others' latency with and without the frozen one, the time until its status says `stalled` and `reconnecting`,
and the time from the thaw to its next result. The network is a tiny one, so that the daemon's own doing is seen.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.conftest import write_camera_clip
from tests.rtsp_server import RtspServer
from tests.test_run import write_constant_network

FROZEN_S = RUNNING_S = 8.0
FPS = 10


class Lines:
    """The daemon's messages as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(json.loads(line))

    def during(self, seconds: float) -> list[dict[str, Any]]:
        """All messages of the next seconds."""
        messages, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                messages.append(self._queue.get(timeout=left))
            except queue.Empty:
                break
        return messages


def main(rounds: int) -> int:
    """Returns 0."""
    with tempfile.TemporaryDirectory() as folder:
        write_camera_clip(Path(folder) / "clip.mp4", frames=300)
        servers = [RtspServer(Path(folder)) for _ in range(3)]
        for server in servers:
            server.start()
        process = subprocess.Popen(  # noqa: S603 (our own program)
            [*command(servers), "--model", str(tiny_model(Path(folder)))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            report(measure(Lines(process), servers[0], rounds))
        finally:
            process.terminate()
            process.wait(20)
            for server in servers:
                server.thaw()
                server.kill()
    return 0


def tiny_model(folder: Path) -> Path:
    """A network that always sees the same object, with its card."""
    path = folder / "tiny.onnx"
    write_constant_network(path, batch=1)
    inspect = [sys.executable, "-m", "edgeinfer", "models", "inspect", str(path), "--card"]
    card = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout  # noqa: S603 (our own program)
    path.with_suffix(".yaml").write_text(card)
    return path


def command(servers: list[RtspServer]) -> list[str]:
    """The daemon with a camera per server."""
    sources = [arg for n, server in enumerate(servers) for arg in ("--source", f"c{n}={server.url()}")]
    limits = [arg for n in range(len(servers)) for arg in ("--set", f"sources.c{n}.max_fps={FPS}")]
    sink = ["--set", "publish=null", "--jsonl", "-", "--set", "sinks.jsonl.kinds=[detections, status]"]
    return [sys.executable, "-u", "-m", "edgeinfer", "run", *sources, *limits, *sink]


def measure(lines: Lines, frozen: RtspServer, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the others' results (`calm`, `frozen`) and seconds of the frozen one's changes."""
    found: dict[str, list[float]] = {key: [] for key in ("calm", "frozen", "added", "stalled", "reconnecting", "back")}
    lines.during(10)
    for _ in range(rounds):
        calm = latencies(lines.during(RUNNING_S))
        frozen.freeze()
        at_ns = time.monotonic_ns()
        messages = lines.during(FROZEN_S)
        found["calm"] += calm
        found["frozen"] += latencies(messages)
        found["added"].append(float(np.percentile(latencies(messages), 99) - np.percentile(calm, 99)))
        for state in ("stalled", "reconnecting"):
            found[state] += first(messages, at_ns, lambda m, s=state: m.get("state") == s)
        frozen.thaw()
        at_ns = time.monotonic_ns()
        found["back"] += first(lines.during(8), at_ns, lambda m: m["kind"] == "detections")
    return found


def latencies(messages: list[dict[str, Any]]) -> list[float]:
    """Capture → publish of the other cameras."""
    return [m["timing_ms"]["total"] for m in messages if m["kind"] == "detections" and m["source"] != "c0"]


def first(messages: list[dict[str, Any]], since_ns: int, wanted: Any) -> list[float]:
    """Seconds until the first message of the frozen camera that is wanted; nothing where none came."""
    times = [m["t_publish_mono_ns"] for m in messages if m["source"] == "c0" and wanted(m)]
    late = [(t - since_ns) / 1e9 for t in times if t > since_ns]
    return late[:1]


def report(found: dict[str, list[float]]) -> None:
    """A line per figure."""
    for key in ("calm", "frozen"):
        p50, p99 = np.percentile(found[key], [50, 99])
        print(f"others, {key}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(found[key])} results")
    print(f"added p99: median {np.median(found['added']):.1f} ms over {len(found['added'])} rounds")
    for key in ("stalled", "reconnecting", "back"):
        values = found[key]
        text = f"median {np.median(values):.2f} s, longest {max(values):.2f} s" if values else "never"
        print(f"{key}: {text}, {len(values)} times")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
