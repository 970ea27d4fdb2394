"""Going on without the cache: an engine for this run alone, where the cache can't be used or takes no more."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path

from edgeinfer.engine.build.builder import run_build
from edgeinfer.engine.build.ensure import Build, ensure_task
from edgeinfer.engine.build.progress import OnProgress
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.errors import CacheError, UnsafeError
from edgeinfer.engine.store.cache import Cache, CachedEngine

log = logging.getLogger(__name__)

MEMORY = Path("/dev/shm")  # noqa: S108 (a fresh folder of our own is made in it)

PROBE_BYTES = 1 << 16


def open_cache(root: Path) -> Cache:
    """The cache in `root`; where it can't be used, a private one in memory for this process, with a warning."""
    try:
        cache = Cache(root)
        with tempfile.TemporaryFile(dir=cache.tmp) as file:  # a full disk shows when something is written
            file.write(bytes(PROBE_BYTES))
            file.flush()
        return cache
    except (CacheError, UnsafeError) as error:
        return _instead(str(error))
    except OSError as error:
        return _instead(f"{root}: can't be written ({error.strerror})")


def ensure_somewhere(
    task: Task, cache: Cache, on_progress: OnProgress, cancel: threading.Event, build: Build = run_build
) -> tuple[CachedEngine, Cache]:
    """Like `ensure_task`; where the cache takes no more, builds once again beside it. Gives the cache that was used."""
    try:
        return ensure_task(task, cache, on_progress, cancel, build=build), cache
    except CacheError as error:
        scratch = _instead(str(error))
        return ensure_task(task, scratch, on_progress, cancel, build=build), scratch


def _instead(why: str) -> Cache:
    log.warning("%s; going on without a cache: the next start builds again", why)
    try:
        folder = tempfile.mkdtemp(prefix="edgeinfer-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    except OSError as error:
        raise CacheError(f"no place for an engine ({error.strerror})", "make room in the cache's folder") from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Cache(Path(folder))
