"""Everything around the daemon, and the daemon: cameras, keys, a small disk, a configuration, and its only process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeinfer.backends import onnxruntime
from edgeinfer.config import strict
from edgeinfer.transport import keys
from tests.conftest import write_camera_clip
from tests.rtsp_server import RtspServer
from tests.siege import networks
from tests.siege.cameras import hostile
from tests.siege.program import ENVIRONMENT

FPS = 5
SECRET = "S3cretQ"  # noqa: S105 (of a camera that this makes)
"""The password in the cameras' addresses; it must be in no output."""
GOOD = ("rtsp0", "rtsp1", "demo", "loop")
SUBSCRIBERS = ("plain", "checking")
GREEDY = "greedy"
"""The name of the key that attacks are made with."""
DISK = "64m"
SMALL_DISK_BALLAST = 64 << 20
TRIAL = {"memory_mb": 512, "trial_s": 10}
LAUNCHER = """
import os, resource, sys
from edgeinfer.guard.confine import die_with
die_with(int(sys.argv.pop(1)))
if descriptors := int(sys.argv.pop(1)):
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
from edgeinfer.cli import main
sys.argv[0] = "edgeinfer"
sys.exit(main(sys.argv[1:]))
"""


class Stage:
    """Made and ended by the main thread. `broken_list`: when the allow list was no list, on the monotonic clock."""

    def __init__(self, folder: Path, stack: ExitStack, descriptors: int = 0) -> None:
        self.folder, self._stack = folder, stack
        self.path, self.allow = folder / "siege.yaml", folder / "allow"
        self.clip = folder / "clip.mp4"
        self.broken_list: list[tuple[int, int]] = []
        self.extra: dict[str, Any] = {}
        self._decks: dict[str, list[str]] = {}
        write_camera_clip(self.clip, frames=150)
        self.model = networks.good(folder)
        self.hostile_networks = networks.hostile(folder)
        self._keys()
        self.disk = self._mount()
        self._ports()
        self._cameras()
        self.write()
        self.process = self._start(descriptors)

    # --- what is prepared ---

    def _keys(self) -> None:
        pairs = {name: keys.generate() for name in ("daemon", *SUBSCRIBERS, GREEDY)}
        for name, pair in pairs.items():
            keys.write_pair(pair, self.folder / name)
            if name != "daemon":
                keys.allow(self.allow, keys.Client(pair.public, name))
        self.server_key = pairs["daemon"].public

    def key(self, name: str) -> str:
        """The path of a .key file."""
        return str(self.folder / f"{name}.key")

    def _mount(self) -> Path | None:
        """A small disk for the JSON lines; None where we may not make one."""
        place = self.folder / "disk"
        place.mkdir()
        mount, umount = shutil.which("mount"), shutil.which("umount")
        if os.geteuid() != 0 or mount is None or umount is None:
            return None
        done = subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={DISK}", "none", place], capture_output=True, check=False
        )
        if done.returncode:
            return None
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, descriptor)
        # Taken out of the tree at once, it lives as long as its descriptor: no mount is left behind, whatever happens.
        subprocess.run([umount, "-l", place], check=True)
        return Path(f"/proc/{os.getpid()}/fd/{descriptor}")

    @property
    def lines(self) -> Path:
        """What the file sink writes."""
        return (self.disk or self.folder) / "out.jsonl"

    def _ports(self) -> None:
        with ExitStack() as stack:
            free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
        self.port, self.web_port = free
        self.endpoint = f"tcp://127.0.0.1:{self.port}"

    def _cameras(self) -> None:
        self.sources: dict[str, Any] = {}
        for name in GOOD[:2]:
            server = RtspServer(self.folder)
            server.start()
            self._stack.callback(server.kill)
            self.sources[name] = {"uri": server.url(credentials=f"user:{SECRET}@"), "max_fps": FPS}
        self.sources["demo"] = {"uri": "demo:", "width": 160, "height": 90, "fps": FPS}
        self.sources["loop"] = {"uri": str(self.clip), "loop": True, "realtime": True, "max_fps": FPS}
        for number, kind in enumerate(("endless fragments", "rubbish")):
            url = self._stack.enter_context(hostile(kind, number, str(self.clip)))
            self.sources[f"hostile{number}"] = {"uri": url}
        for habit in ("dies", "swells", "hangs"):
            self.sources[habit] = {"uri": f"tests.siege.odd_camera://{habit}", "isolated": True}

    # --- the configuration ---

    def text(self, **changes: Any) -> str:
        """The configuration as it is to be, with top-level keys replaced."""
        backend = {"name": "onnxruntime", "threads": 1}
        known = strict.field_names(onnxruntime.Options)
        config: dict[str, Any] = {
            "model": {"path": self.model, "score": 0.4},
            "backend": backend | {key: value for key, value in TRIAL.items() if key in known},
            "sources": {**self.sources, **self.extra},
            "publish": {
                "bind": self.endpoint,
                "curve": {"secret_key": self.key("daemon"), "allow": str(self.allow)},
            },
            "http": {"bind": f"127.0.0.1:{self.web_port}"},
            "sinks": {"jsonl": {"path": str(self.lines)}},
        }
        return json.dumps(config | changes)

    def write(self, text: str | None = None) -> None:
        """Puts a configuration in its place at once; ours where none is given."""
        _replace(self.path, self.text() if text is None else text)

    def reload(self) -> None:
        """Asks for the file to be read again."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGHUP)

    @contextmanager
    def changed(self, text: str | None = None) -> Iterator[None]:
        """Another configuration for the length of a block, and the right one afterwards."""
        self.write(text)
        self.reload()
        try:
            yield
        finally:
            self.write()
            self.reload()

    @contextmanager
    def with_sources(self, **sources: Any) -> Iterator[None]:
        """More sources for the length of a block."""
        self.extra = sources
        try:
            with self.changed():
                yield
                self.extra = {}
        finally:
            self.extra = {}

    @contextmanager
    def without_list(self) -> Iterator[None]:
        """The allow list may be anything in the block, and is right again afterwards."""
        whole, began = self.allow.read_text(), time.monotonic_ns()
        try:
            yield
        finally:
            self.put_back(whole)
            self.broken_list.append((began, time.monotonic_ns()))

    def put_back(self, whole: str) -> None:
        """Makes the allow list what it was."""
        _replace(self.allow, whole)

    def picture(self) -> str:
        """One of 8000 × 6000 pixels, 144 MB when it is decoded."""
        path = self.folder / "big.jpg"
        if not path.exists():
            cv2.imwrite(str(path), np.zeros((6000, 8000, 3), np.uint8))
        return str(path)

    def deal(self, deck: str, cards: Sequence[str], rng: random.Random, count: int = 1) -> list[str]:
        """So many of the cards: none comes again before all have been dealt."""
        left = self._decks.setdefault(deck, [])
        while len(left) < count:
            left[:0] = rng.sample(cards, len(cards))
        return [left.pop() for _ in range(count)]

    # --- the daemon ---

    def _start(self, descriptors: int) -> subprocess.Popen[bytes]:
        self.log = self.folder / "log"
        state = {name: str(self.folder / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
        command = ["run", "--config", self.path.name]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(os.getpid()), str(descriptors), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**ENVIRONMENT, **state},
            )
        self._stack.callback(self._kill)
        return process

    @property
    def alive(self) -> bool:
        """Whether it is the process that was started."""
        return self.process.poll() is None

    def end(self, patience_s: float) -> int | None:
        """Asks it to end. Its exit code, None where it did not."""
        self.process.terminate()
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def health(self) -> int:
        """What /healthz answers, 0 where it does not."""
        try:
            url = f"http://127.0.0.1:{self.web_port}/healthz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except (OSError, http.client.HTTPException):
            return 0


def _replace(path: Path, text: str) -> None:
    """Puts a file in its place at once, whatever is there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
