"""Eight sources under random faults: what `scripts/soak` runs in full, and the tests for two minutes.

The daemon is a process of its own; the cameras are two real RTSP servers behind proxies that misbehave, a V4L2 camera
with a stand-in for the device, a looping video and synthetic ones. A fault lasts some seconds; faults overlap.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from edgeinfer.client import Subscriber
from edgeinfer.messages import DetectionsMessage, StatusMessage
from tests.conftest import write_camera_clip
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.rtsp_server import RtspServer
from tests.test_run import write_constant_network

RTSP = 4
FPS = 5
UNAUTHORIZED = b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n"
LAUNCHER = """
import sys, time
from pathlib import Path
real = time.time_ns
time.time_ns = lambda: real() + int(Path("step").read_text() or 0) * 10**9
time.time = lambda: time.time_ns() / 1e9
from edgeinfer.cli import main
sys.argv[0] = "edgeinfer"
sys.exit(main(sys.argv[1:]))
"""
RECOVERY_S = 150.0
"""A camera that has refused us several times is not asked again sooner."""
WARM_UP_S = 15.0


@dataclass
class Outcome:
    """What happened. `unaccounted`: frames that are neither inferred, dropped nor in flight, over all statuses seen."""

    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    unaccounted: int = 0
    statuses: int = 0
    results: int = 0
    exit_code: int | None = None
    starts: int = 1
    rss_mb: list[float] = field(default_factory=list)
    not_back: list[str] = field(default_factory=list)
    stderr: str = ""

    @property
    def growth(self) -> float:
        """Of resident memory, the last quarter's median over the first quarter's, as a share."""
        quarter = max(1, len(self.rss_mb) // 4)
        first, last = sorted(self.rss_mb[:quarter]), sorted(self.rss_mb[-quarter:])
        return last[len(last) // 2] / first[len(first) // 2] - 1


class Stage:
    """Everything around the daemon, and the daemon."""

    def __init__(self, folder: Path, stack: ExitStack, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        write_camera_clip(folder / "clip.mp4", frames=150)
        self.servers = [self._server(stack) for _ in range(2)]
        self.proxies = [stack.enter_context(faulty_proxy(self.servers[n % 2].port)) for n in range(RTSP)]
        self._devices()
        write_constant_network(folder / "tiny.onnx", batch=1)
        self._card()
        (folder / "step").write_text("0")
        self.small_disk = self._mount(stack)
        self.write_config(extra=False)
        self.endpoint = f"ipc://{folder}/soak.sock"
        self.log = stack.enter_context((folder / "stderr").open("w"))
        root = Path(__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "run", "--config", "soak.yaml"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": str(root), "XDG_STATE_HOME": str(folder / "state")},
        )
        stack.callback(self._end)

    def _server(self, stack: ExitStack) -> RtspServer:
        server = RtspServer(self.folder)
        server.start()
        stack.callback(server.kill)
        stack.callback(server.thaw)
        return server

    def _devices(self) -> None:
        for number in (0, 1):
            (self.folder / f"video{number}").touch()
        (self.folder / "by-id").symlink_to("video0")

    def _card(self) -> None:
        command = [sys.executable, "-m", "edgeinfer", "models", "inspect", "tiny.onnx", "--card"]
        card = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout
        (self.folder / "tiny.yaml").write_text(card)

    def _mount(self, stack: ExitStack) -> Path | None:
        """A disk of one megabyte for the JSON lines; None where we may not make one."""
        place = self.folder / "disk"
        place.mkdir()
        mount = shutil.which("mount")
        if os.geteuid() != 0 or mount is None:
            return None
        done = subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            return None
        stack.callback(lambda: subprocess.run([shutil.which("umount") or "umount", "-l", str(place)], check=False))
        return place

    def write_config(self, extra: bool) -> None:
        """The configuration; `extra` adds a ninth source and changes a threshold."""
        sources: dict[str, Any] = {
            f"rtsp{n}": {"uri": f"rtsp://user:S3cretQ@127.0.0.1:{proxy.port}/clip.mp4/play_count_0", "max_fps": FPS}
            for n, proxy in enumerate(self.proxies)
        }
        sources["usb"] = {"uri": f"tests.soak_camera://{self.folder}/by-id"}
        sources["loop"] = {"uri": str(self.folder / "clip.mp4"), "loop": True, "realtime": True, "max_fps": FPS}
        demo = {"uri": "demo:", "width": 160, "height": 90, "fps": FPS}
        sources["demo0"] = sources["demo1"] = demo
        if extra:
            sources["extra"] = demo
        config: dict[str, Any] = {
            "model": {"path": str(self.folder / "tiny.onnx"), "score": 0.5 if extra else 0.4},
            "backend": "onnxruntime",
            "sources": sources,
            "publish": {"bind": f"ipc://{self.folder}/soak.sock"},
        }
        if self.small_disk is not None:
            config["sinks"] = {"jsonl": {"path": str(self.small_disk / "out.jsonl")}}
        (self.folder / "soak.new").write_text(json.dumps(config))
        (self.folder / "soak.new").replace(self.folder / "soak.yaml")

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Faults:
    """Each fault begins something and returns what ends it."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._rng = stage, stage.rng
        self.kinds: dict[str, Callable[[], Callable[[], None]]] = {
            "reset": self._reset,
            "freeze": self._freeze,
            "stall": self._stall,
            "unauthorized": self._unauthorized,
            "truncation": self._truncation,
            "slow subscriber": self._slow_subscriber,
            "replug": self._replug,
            "clock jump": self._clock_jump,
            "reload": self._reload,
            "bad reload": self._bad_reload,
        }
        if stage.small_disk is not None:
            self.kinds["disk full"] = self._disk_full

    def _proxy(self) -> FaultyProxy:
        return self._rng.choice(self._stage.proxies)

    def _reset(self) -> Callable[[], None]:
        self._proxy().reset()
        return lambda: None

    def _freeze(self) -> Callable[[], None]:
        server = self._rng.choice(self._stage.servers)
        server.freeze()
        return server.thaw

    def _stall(self) -> Callable[[], None]:
        proxy = self._proxy()
        proxy.stalled = True
        return lambda: setattr(proxy, "stalled", False)

    def _unauthorized(self) -> Callable[[], None]:
        """Refused once: a camera that has locked us out is tried again after half a minute, not before."""
        proxy = self._proxy()
        proxy.answer = UNAUTHORIZED
        proxy.reset()
        return lambda: setattr(proxy, "answer", None)

    def _truncation(self) -> Callable[[], None]:
        proxy = self._proxy()
        proxy.truncate_after = self._rng.randint(100, 60_000)
        proxy.reset()
        return lambda: setattr(proxy, "truncate_after", None)

    def _slow_subscriber(self) -> Callable[[], None]:
        command = [sys.executable, "-m", "edgeinfer", "listen", self._stage.endpoint]
        listener = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        listener.send_signal(signal.SIGSTOP)

        def end() -> None:
            listener.kill()
            listener.wait()

        return end

    def _replug(self) -> Callable[[], None]:
        link = self._stage.folder / "by-id"
        before = link.resolve()
        link.unlink()
        before.unlink()
        after = self._stage.folder / ("video1" if before.name == "video0" else "video0")

        def plug() -> None:
            after.touch()
            link.symlink_to(after.name)

        return plug

    def _clock_jump(self) -> Callable[[], None]:
        self._set_step(self._rng.choice((3600, -3600, 5, -5)))
        return lambda: self._set_step(0)

    def _set_step(self, seconds: int) -> None:
        (self._stage.folder / "step.new").write_text(str(seconds))
        (self._stage.folder / "step.new").replace(self._stage.folder / "step")

    def _reload(self) -> Callable[[], None]:
        self._change(lambda: self._stage.write_config(extra=True))
        return lambda: self._change(lambda: self._stage.write_config(extra=False))

    def _bad_reload(self) -> Callable[[], None]:
        self._change(lambda: (self._stage.folder / "soak.yaml").write_text("sources: [nonsense"))
        return lambda: self._change(lambda: self._stage.write_config(extra=False))

    def _change(self, write: Callable[[], object]) -> None:
        write()
        self._stage.process.send_signal(signal.SIGHUP)

    def _disk_full(self) -> Callable[[], None]:
        assert self._stage.small_disk is not None
        ballast = self._stage.small_disk / "ballast"
        with suppress(OSError):  # full, as it should be
            ballast.write_bytes(bytes(2 << 20))

        def free() -> None:
            ballast.unlink(missing_ok=True)
            (self._stage.small_disk or Path()).joinpath("out.jsonl").unlink(missing_ok=True)
            self._change(lambda: self._stage.write_config(extra=False))  # a sink that failed is opened again

        return free


class Witness(threading.Thread):
    """A subscriber that hears everything and does the sums."""

    def __init__(self, endpoint: str, outcome: Outcome) -> None:
        super().__init__(daemon=True)
        self.last: dict[str, StatusMessage] = {}
        self._endpoint, self._outcome = endpoint, outcome
        self._sessions: set[str] = set()
        self.done = threading.Event()

    def run(self) -> None:
        with Subscriber(self._endpoint, kinds=("detections", "status")) as subscriber:
            while not self.done.is_set():
                message = subscriber.receive(0.5)
                if message is not None:
                    self._hear(message)

    def _hear(self, message: Any) -> None:
        self._sessions.add(message.session)
        self._outcome.starts = len(self._sessions)
        if isinstance(message, DetectionsMessage):
            self._outcome.results += 1
        elif isinstance(message, StatusMessage):
            self._outcome.statuses += 1
            books = message.captured - message.inferred - message.dropped - message.in_flight
            self._outcome.unaccounted += abs(books)
            self.last[message.source] = message


def soak(folder: Path, seconds: float, count: int, seed: int, tell: Callable[[str], None]) -> Outcome:
    """Runs the daemon with `count` faults spread over `seconds`, then waits until every source is back."""
    outcome, rng = Outcome(), random.Random(seed)
    with ExitStack() as stack:
        stage = Stage(folder, stack, rng)
        witness = Witness(stage.endpoint, outcome)
        witness.start()
        _wait(stage, WARM_UP_S, outcome)
        started = time.monotonic()
        _disturb(stage, seconds, count, outcome, tell)
        outcome.seconds = time.monotonic() - started
        outcome.not_back = _recover(stage, witness, outcome)
        stage.process.terminate()
        try:
            outcome.exit_code = stage.process.wait(20)
        except subprocess.TimeoutExpired:
            outcome.exit_code = None
        witness.done.set()
        witness.join(5)
    outcome.stderr = (folder / "stderr").read_text()
    return outcome


def _disturb(stage: Stage, seconds: float, count: int, outcome: Outcome, tell: Callable[[str], None]) -> None:
    faults = Faults(stage)
    kinds = list(faults.kinds)
    # Every kind once, in a random order, and then again.
    plan = [kind for _ in range(-(-count // len(kinds))) for kind in stage.rng.sample(kinds, len(kinds))][:count]
    ends: list[tuple[float, Callable[[], None]]] = []
    for kind in plan:
        tell(kind)
        outcome.faults[kind] += 1
        until = time.monotonic() + stage.rng.uniform(1.0, 8.0)
        ends.append((until, faults.kinds[kind]()))
        _wait(stage, seconds / count, outcome)
        for due, end in [entry for entry in ends if entry[0] <= time.monotonic()]:
            end()
            ends.remove((due, end))
    for _, end in ends:
        end()


def _wait(stage: Stage, seconds: float, outcome: Outcome) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and stage.process.poll() is None:
        outcome.rss_mb.append(psutil.Process(stage.process.pid).memory_info().rss / 1e6)
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))


def _recover(stage: Stage, witness: Witness, outcome: Outcome) -> list[str]:
    """Sources that are not running at the end; those that were locked out are tried again only now and then."""
    until = time.monotonic() + RECOVERY_S
    names = set(json.loads((stage.folder / "soak.yaml").read_text())["sources"])
    while time.monotonic() < until and stage.process.poll() is None:
        _wait(stage, 1.0, outcome)
        missing = [name for name in names if name not in witness.last or witness.last[name].state != "running"]
        if not missing:
            return []
    return sorted(f"{name}: {witness.last[name].state if name in witness.last else 'unknown'}" for name in missing)
