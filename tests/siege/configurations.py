"""Files that are none: what a configuration, or a list of keys, is replaced by; and reloads without an end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.siege.stage import Stage


def spoil(path: Path, way: str) -> str:
    """Puts something else in the place of a file, which is gone for a moment in some cases, as with careless users."""
    _WAYS[way](path)
    return way


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(to: str) -> Callable[[Path], object]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(to or path.name)

    return link


_WAYS: dict[str, Callable[[Path], object]] = {
    "a pipe": _fifo,
    "a folder": _folder,
    "a link to itself": _link(""),
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to the memory": _link("/proc/self/mem"),
    "for everybody to write": lambda path: path.chmod(0o666),
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(os.urandom(2000)),
    "too large": lambda path: path.write_bytes(b"x" * (3 << 20)),
}
WAYS = tuple(_WAYS)


def _merges(depth: int, width: int) -> str:
    """Some hundred bytes of merges that are a great deal when they are written out."""
    rest = (f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * width)}]}}\n" for n in range(1, depth))
    return "a0: &a0 {k: v}\n" + "".join(rest)


def _aliases(depth: int) -> str:
    return "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)) + "\n"


def prepared(stage: Stage) -> Path:
    """A folder of configurations, right and wrong ones. Made once."""
    folder = stage.folder / "configurations"
    if not folder.exists():
        folder.mkdir()
        right = stage.text()
        texts = {
            "right": right,
            "threshold": stage.text(model={"path": stage.model, "score": 0.6}),
            "more": stage.text(sources={**stage.sources, "another": {"uri": "demo:", "fps": 3}}),
            "fewer frames": stage.text(batching="latency"),
            "broken": "sources: [nonsense",
            "half": right[: len(right) // 2],
            "unknown": '{"sauces": {}}',
            "huge": "# " + "x" * (1 << 20),
            "merges": _merges(12, 9),
            "aliases": _aliases(12),
            "deep": "[" * 5000,
            "number": "frames: " + "9" * 100_000,
            "object": "model: !!python/object/apply:os.system ['touch owned']\n",
            "control": "sources: {\"a\\x1b]0;x\\x07\": 'demo:'}\n",
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        os.mkfifo(folder / "fifo")
    return folder


def storm(pid: int, path: str, folder: str, seed: int, per_s: float) -> None:
    """The program: another configuration in the file's place, and SIGHUP, so many times a second."""
    rng, place = random.Random(seed), Path(path)
    choices = sorted(Path(folder).iterdir())
    new = place.with_name("storm.new")
    while True:
        with suppress(FileNotFoundError):
            new.unlink()
        os.link(rng.choice(choices), new)
        new.replace(place)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
        time.sleep(1 / per_s)
