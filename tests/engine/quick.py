"""Engines without a build child, for tests of what becomes of them. What comes out is what `child.py` makes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from edgeinfer.engine.build.builder import BuildOutcome
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.build.protocol import BuildRequest, Built
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.manifest import Verification
from tests.engine.plans import make_plan


def quick(request: BuildRequest, _: object, on_progress: OnProgress, *__: object) -> BuildOutcome:
    """A build in no time."""
    on_progress(BuildProgress("Working", 0.5, 1.0))
    plan = make_plan(request.tensorrt, os.urandom(100_000))
    (Path(request.work) / "engine.plan").write_bytes(plan)
    return BuildOutcome(built(plan), ("this TensorRT has no such thing",), ("INFO hello",))


def built(plan: bytes) -> Built:
    """The record of a plan that was not checked."""
    check, digest = Verification(state="skipped", reason="no GPU"), hashlib.sha256(plan).hexdigest()
    return Built(
        seconds=1.5, how="as it was", plan_bytes=len(plan), plan_sha256=digest, peak_rss_bytes=1, verification=check
    )


def quickly(cache: Cache, what: Task, on_progress: OnProgress = lambda _: None, rebuild: bool = False) -> CachedEngine:
    """The engine of a task, from the cache or built in no time."""
    return ensure_task(what, cache, on_progress, threading.Event(), rebuild, build=quick)
