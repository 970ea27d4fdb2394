"""A cache that is full, read-only or unsafe: the engine is built all the same, and a warning says why."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.engine.build import scratch
from edgeinfer.engine.build.builder import BuildOutcome
from edgeinfer.engine.store.cache import Cache
from tests.engine.test_ensure import child, task

MOUNT, UMOUNT = (shutil.which(name) or name for name in ("mount", "umount"))


def fill(folder: Path) -> None:
    """Until there is no room for one byte more."""
    descriptor = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    mount = [MOUNT, "-t", "tmpfs", "-o", "size=256k,mode=700", "edgeinfer-test", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run([UMOUNT, str(folder)], check=True)


@pytest.fixture(autouse=True)
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(scratch, "MEMORY", place)


def build(cache: Cache, mode: str = "build") -> Path:
    engine, used = scratch.ensure_somewhere(task(), cache, lambda _: None, threading.Event(), build=child(mode))
    assert engine.read()
    return used.root


@pytest.mark.slow
def test_a_cache_that_works_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = scratch.open_cache(tmp_path / "cache")
    assert build(cache) == tmp_path / "cache"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not list(cache.tmp.iterdir())


@pytest.mark.slow
def test_a_full_disk_at_the_start(small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Cache(small_disk / "cache")
    fill(small_disk)
    used = build(scratch.open_cache(small_disk / "cache"))
    assert used.is_relative_to(tmp_path / "memory")
    assert "No space left" in caplog.text
    assert "going on without a cache" in caplog.text


@pytest.mark.slow
def test_a_disk_that_fills_up_during_the_build(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = scratch.open_cache(small_disk / "cache")
    modes = iter(("full", "build"))  # the child that meets a full disk says so, and the next one has another place

    def twice(*args: Any) -> BuildOutcome:
        outcome: BuildOutcome = child(next(modes))(*args)
        return outcome

    engine, used = scratch.ensure_somewhere(task(), cache, lambda _: None, threading.Event(), build=twice)
    assert engine.read()
    assert used.root != cache.root
    assert "going on without a cache" in caplog.text
    assert not list(cache.engines.iterdir()), "nothing half-written stays"


@pytest.mark.slow
def test_a_disk_that_has_no_room_for_the_plan(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = scratch.open_cache(small_disk / "cache")

    def fills_up(*args: Any) -> BuildOutcome:
        outcome: BuildOutcome = child("build")(*args)
        fill(small_disk)
        return outcome

    engine, used = scratch.ensure_somewhere(task(), cache, lambda _: None, threading.Event(), build=fills_up)
    assert engine.read()
    assert used.root != cache.root
    assert "No space left" in caplog.text


@pytest.mark.slow
def test_a_read_only_cache(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    Cache(small_disk / "cache")
    subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
    assert not build(scratch.open_cache(small_disk / "cache")).is_relative_to(small_disk)
    assert "Read-only file system" in caplog.text


@pytest.mark.slow
def test_a_cache_that_others_can_write_is_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o777)
    assert build(scratch.open_cache(root)) != root
    assert "others may write it" in caplog.text
    assert not list(root.iterdir())
