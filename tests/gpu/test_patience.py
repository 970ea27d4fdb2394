"""How long the GPU is waited for: longer while an engine is built in this process, and for a while after it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.task import make_task
from edgeinfer.engine.errors import BuildError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.cache import Cache
from edgeinfer.errors import FatalError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.patience import PATIENCE, GpuPatience
from tests.engine.quick import quick, quickly
from tests.engine.samples import NANODET, ORIN
from tests.gpu import simulated


def test_a_batch_may_take_longer_beside_a_build_and_as_long_after_it() -> None:
    now = [100.0]
    patience = GpuPatience(10.0, 60.0, lambda: now[0])
    assert (patience.deadline_s(), patience.long) == (10.0, False)
    with patience.building():
        now[0] += 3600
        assert patience.deadline_s() == 60.0
        with patience.building():
            pass
        now[0] += 60
        assert patience.deadline_s() == 60.0, "one of two goes on"
    now[0] += 59
    assert patience.deadline_s() == 60.0
    now[0] += 1
    assert patience.deadline_s() == 10.0


def test_a_build_that_fails_is_over_too() -> None:
    now = [0.0]
    patience = GpuPatience(clock=lambda: now[0])
    with pytest.raises(BuildError), patience.building():
        raise BuildError("no")
    now[0] = 60.0
    assert patience.deadline_s() == 10.0


def test_every_build_of_an_engine_stretches_it_and_a_cached_one_does_not(tmp_path: Path) -> None:
    cache, task, seen = Cache(tmp_path / "cache"), make_task(NANODET, BuildOptions(), ORIN), list[bool]()

    def build(*args: object) -> object:
        seen.append(PATIENCE.long)
        return quick(*args)  # type: ignore[arg-type]

    assert not PATIENCE.long
    ensure_task(task, cache, lambda _: None, threading.Event(), build=build)  # type: ignore[arg-type]
    assert (seen, PATIENCE.long) == ([True], True)
    PATIENCE._ended_s = float("-inf")
    quickly(cache, task)
    assert not PATIENCE.long


def test_waiting_for_a_stream_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    device = simulated.install(monkeypatch)
    cuda = Cuda()
    stream, event = cuda.stream(), cuda.event()
    device.hold = True
    monkeypatch.setattr(PATIENCE, "usual_s", 0.0)
    with pytest.raises(FatalError, match="the GPU did not finish a batch within 0 s"):
        cuda.finish(event, stream)
