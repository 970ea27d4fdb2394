"""Measures what the live page costs. Two daemons run side by side in one run, one without the page and one with it.

    scripts/measure_web [--rounds 5] [--seconds 8] [--size 640x360] [--form bgr|yuv]

Each has four cameras of 10 pictures a second. In every round nobody looks, then one viewer does, then eight, all at
640 pixels. CPU time is the whole process's, as the kernel counts it; what nobody looks at is subtracted in the same
round. Prints a table in Markdown: medians, and the smallest and largest round. The network is a tiny one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.test_run import write_constant_network

SOURCES, FPS, WIDTH = 4, 10, 640
VIEWERS = (0, 1, 8)
SETTLE_S = 1.0
WARM_S = 8.0


class Daemon:
    """One that runs, and what it says."""

    def __init__(self, folder: Path, arguments: argparse.Namespace, web: bool) -> None:
        uri = f"scripts.still_camera:///{arguments.form}?{arguments.size}"
        sources = [arg for n in range(SOURCES) for arg in ("--source", f"c{n}={uri}")]
        page = ["--set", "http.bind=127.0.0.1:0", "--set", "http.web=true"] if web else []
        sink = ["--set", "publish=null", "--jsonl", "-"]
        command = [sys.executable, "-u", "-m", "edgeinfer", "run", *sources, "--model", str(folder / "tiny.onnx")]
        self.process = subprocess.Popen(  # noqa: S603 (our own program)
            [*command, *page, *sink], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.port = 0
        self._told = threading.Event()
        self._latencies: list[float] = []
        for read in (self._read, self._listen):
            threading.Thread(target=read, daemon=True).start()
        if web and not self._told.wait(60):
            raise SystemExit("the daemon says no address of its page")

    @property
    def cpu_s(self) -> float:
        """Its CPU time so far, all threads, those that have ended too."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        """Its resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(found[1]) / 1024 if found else 0.0

    def pictures(self) -> int:
        """How many were made for viewers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/status", timeout=20) as answer:
            return int(json.load(answer)["daemon"]["http"]["pictures"])

    def latencies(self) -> list[float]:
        """Capture → publish of what came since this was last asked, in ms."""
        taken, self._latencies = self._latencies, []
        return taken

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message["kind"] == "detections":
                self._latencies.append(message["timing_ms"]["total"])

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"page https?://[^ ]*:(\d+)/", line):
                self.port = int(found[1])
                self._told.set()


@dataclass
class Phase:
    """What one part of a round took: CPU as a share of a core, without the page and with it."""

    plain: float = 0.0
    web: float = 0.0
    pictures: int = 0
    shown: int = 0
    seconds: float = 0.0
    rss_mb: tuple[float, float] = (0.0, 0.0)
    p99_ms: tuple[float, float] = (0.0, 0.0)


@dataclass
class Figures:
    """Rounds of each number of viewers."""

    phases: dict[int, list[Phase]] = field(default_factory=lambda: {count: [] for count in VIEWERS})


@contextlib.contextmanager
def viewers(port: int, count: int) -> Iterator[list[int]]:
    """So many viewers in a process of their own. At the end the list holds how many pictures each was shown."""
    shown: list[int] = []
    if not count:
        yield shown
        return
    command = [sys.executable, str(Path(__file__).with_name("web_viewers.py")), str(port), str(count), str(WIDTH)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own program)
    try:
        yield shown
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    shown += json.loads(out)


def tiny_model(folder: Path) -> None:
    """A network that always sees the same object, with its card."""
    path = folder / "tiny.onnx"
    write_constant_network(path, batch=1)
    inspect = [sys.executable, "-m", "edgeinfer", "models", "inspect", str(path), "--card"]
    card = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout  # noqa: S603 (our own program)
    path.with_suffix(".yaml").write_text(card)


def measure(folder: Path, arguments: argparse.Namespace) -> Figures:
    """All rounds."""
    plain, web = Daemon(folder, arguments, web=False), Daemon(folder, arguments, web=True)
    figures = Figures()
    try:
        time.sleep(WARM_S)
        for number in range(arguments.rounds):
            for count in VIEWERS:
                figures.phases[count].append(phase(plain, web, count, arguments.seconds))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    finally:
        for daemon in (plain, web):
            daemon.process.terminate()
            daemon.process.wait(20)
    return figures


def phase(plain: Daemon, web: Daemon, count: int, seconds: float) -> Phase:
    """With so many viewers, for so long."""
    made = Phase()
    with viewers(web.port, count) as shown:
        time.sleep(SETTLE_S)
        for daemon in (plain, web):
            daemon.latencies()
        before, begun_s, pictures = (plain.cpu_s, web.cpu_s), time.monotonic(), web.pictures()
        time.sleep(seconds)
        made.seconds = time.monotonic() - begun_s
        made.plain, made.web = (
            (daemon.cpu_s - then) / made.seconds for daemon, then in zip((plain, web), before, strict=True)
        )
        made.pictures = web.pictures() - pictures
        made.rss_mb = plain.rss_mb, web.rss_mb
        p99 = [float(np.percentile(daemon.latencies(), 99)) for daemon in (plain, web)]
        made.p99_ms = p99[0], p99[1]
    made.shown = sum(shown)
    return made


def report(figures: Figures, arguments: argparse.Namespace) -> None:
    """The table."""
    phases = figures.phases
    added = {n: [each.web - each.plain for each in phases[n]] for n in VIEWERS}
    looking = {n: [each.web - none.web for each, none in zip(phases[n], phases[0], strict=True)] for n in VIEWERS if n}
    rates = {n: [each.pictures / each.seconds for each in phases[n]] for n in VIEWERS}
    each_ms = [1000 * cpu / rate for cpu, rate in zip(looking[1], rates[1], strict=True) if rate]
    each_ms_8 = [1000 * cpu / rate for cpu, rate in zip(looking[8], rates[8], strict=True) if rate]
    alone, load = spread([each.plain * 100 for each in phases[0]]), os.getloadavg()[0]
    print(f"Four cameras of {FPS} pictures a second, {arguments.size}, {arguments.form}; viewers at {WIDTH} pixels;")
    print(
        f"{arguments.rounds} rounds of {arguments.seconds:.0f} s; the machine's load {load:.1f} on {os.cpu_count()}",
        end="",
    )
    print(f" cores; the daemon without the page took {alone} % of a core.\n")
    print("| | nobody looks | one viewer | eight viewers |\n|---|---|---|---|")
    row("pictures made a second", [rates[n] for n in VIEWERS])
    row(
        "% of a core for the page, of the daemon with it alone",
        [[], *([100 * v for v in looking[n]] for n in (1, 8))],
        1,
    )
    row("% of a core, beside the daemon without it", [[100 * value for value in added[n]] for n in VIEWERS], 1)
    row("CPU ms a picture made", [[], each_ms, each_ms_8], 2)
    row(
        "MB of memory, beside the daemon without it",
        [[e.rss_mb[1] - e.rss_mb[0] for e in phases[n]] for n in VIEWERS],
        1,
    )
    row("ms of p99 capture → publish, beside it", [[e.p99_ms[1] - e.p99_ms[0] for e in phases[n]] for n in VIEWERS], 2)


def row(what: str, columns: Sequence[Sequence[float]], digits: int = 1) -> None:
    """A line of the table."""
    print(f"| {what} | " + " | ".join(spread(values, digits) for values in columns) + " |")


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, smallest, largest."""
    if not values:
        return ""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def main(given: list[str]) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--form", choices=["bgr", "yuv"], default="bgr")
    arguments: Any = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        tiny_model(Path(folder))
        report(measure(Path(folder), arguments), arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
