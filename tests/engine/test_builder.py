"""The build child and the process that waits for it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.engine import toolkit
from edgeinfer.engine.build import builder, worker
from edgeinfer.engine.build.builder import BuildLimits
from edgeinfer.engine.build.progress import BuildProgress
from edgeinfer.engine.build.protocol import Failed, Logged, Step, Warned
from edgeinfer.engine.errors import BuildCancelledError, BuildError, BuildKilledError, CacheError, ToleranceError
from edgeinfer.engine.store.cache import Cache
from edgeinfer.errors import OutOfMemoryError, UnavailableError
from edgeinfer.guard.limits import MAX_BUILD_S
from edgeinfer.guard.memory import resident_bytes
from tests.engine.fakes import fake_toolkit
from tests.engine.test_ensure import task


def test_the_child_goes_first_where_memory_is_short_and_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Path, "write_text", lambda self, text: asked.append((str(self), text)))
    monkeypatch.setattr(os, "nice", asked.append)
    worker._be_the_first_to_go()
    assert asked == [("/proc/self/oom_score_adj", "1000"), 10]


def test_the_child_wants_the_tensorrt_that_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolkit, "load", lambda _: fake_toolkit("10.7.0"))
    asked = task().request("fp16", tmp_path, Cache(tmp_path / "c"))
    with pytest.raises(
        UnavailableError, match=r"10\.7\.0\.23 was found for the build, where 10\.3\.0\.30 was expected"
    ):
        worker._construct(asked, lambda _: None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "BuildKilledError"),
        (OSError(errno.ENOSPC, "full"), "CacheError"),
        (OSError(errno.EDQUOT, "full"), "CacheError"),
        (OSError(errno.EIO, "broken"), ""),
        (ValueError("odd"), ""),
    ],
)
def test_what_nobody_foresaw_is_told_too(error: BaseException, kind: str) -> None:
    assert worker._unforeseen(error).kind == kind


# --- its parent


def test_the_child_finds_this_package_and_keeps_to_its_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    asked = task().request("fp16", tmp_path, Cache(tmp_path / "c"))
    held = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    code = (
        "import os, sys, edgeinfer; os.fstat(int(sys.argv[1])); print(os.getcwd(), edgeinfer.__file__,"
        "os.environ['PYTHONPATH'], os.getsid(0) == os.getpid(), len(sys.stdin.readline()) > 100)"
    )
    with builder._child([sys.executable, "-c", code, str(held)], asked, held) as child:
        assert child.stdout is not None
        said = child.stdout.read().decode().split()
    os.close(held)
    root = Path(builder.__file__).parents[3]
    path = f"{root}{os.pathsep}/elsewhere"
    assert said == [str(tmp_path), str(root / "edgeinfer/__init__.py"), path, "True", "True"]
    assert (tmp_path / "stderr").read_bytes() == b""


def watched(*events: Any, estimate: float | None = None) -> tuple[list[BuildProgress], Any]:
    seen: list[BuildProgress] = []
    watch = builder._Watch(seen.append, estimate)
    for event in events:
        watch.take(event)
    return seen, watch


def test_progress_never_goes_back_and_a_step_without_a_number_keeps_it() -> None:
    seen, _ = watched(Step("a", 0.5), Step("b"), Step("c", 0.3), Step("d", 0.7))
    assert [(moment.phase, moment.fraction) for moment in seen] == [("a", 0.5), ("b", 0.5), ("c", 0.5), ("d", 0.7)]
    seen, _ = watched(Step("a"))
    assert [(moment.fraction, moment.estimate_s) for moment in seen] == [(None, None)]
    seen, _ = watched(Step("a"), estimate=1e-9)
    assert seen[0].fraction == 0.99


def test_what_the_child_says_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "edgeinfer.engine.build.builder"):
        _, watch = watched(Warned("w"), *[Logged(f"INFO {n}") for n in range(100)], Logged("ERROR e"), Failed("", "x"))
    assert watch.warnings == ["w"]
    assert (len(watch.log), watch.log[-1]) == (60, "ERROR e")
    assert watch.result == Failed("", "x")
    assert [r.levelname for r in caplog.records][-2:] == ["INFO", "ERROR"]


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (Failed("ToleranceError", "m", "h"), ToleranceError),
        (Failed("CacheError", "m"), CacheError),
        (Failed("UnavailableError", "m"), UnavailableError),
        (Failed("OutOfMemoryError", "m"), OutOfMemoryError),
        (Failed("", "m"), BuildError),
    ],
)
def test_the_childs_error_is_raised_as_what_it_was(failed: Failed, kind: type[Exception], tmp_path: Path) -> None:
    _, watch = watched(failed)
    error = builder._failure(watch, 1, tmp_path)
    assert (type(error), error.message, error.hint) == (kind, "m", failed.hint)


NVMAP = "NvMapMemAllocInternalTagged: 1075072515 error 12\nNvMapMemHandleAlloc: error 0\n"
"""What a Jetson's allocator prints when its memory is gone; TensorRT does not hear of it."""


@pytest.mark.parametrize(
    ("result", "code"),
    [(Failed("BuildError", "no plan"), 70), (Failed("", "RuntimeError: x"), 70), (None, -signal.SIGSEGV), (None, 1)],
)
def test_a_jetson_that_runs_out_of_memory_is_known_by_what_its_allocator_prints(
    result: Failed | None, code: int, tmp_path: Path
) -> None:
    _, watch = watched(*filter(None, [result]))
    (tmp_path / "stderr").write_text(f"loading\n{NVMAP}terminate called\n")
    error = builder._failure(watch, code, tmp_path)
    assert (type(error), error.exit_code) == (BuildKilledError, 75)
    assert "(NvMapMemAllocInternalTagged: 1075072515 error 12)" in error.message
    (tmp_path / "stderr").write_text("node NvMapMemHandleAlloc: error 0 is not supported\n")
    assert type(builder._failure(watch, code, tmp_path)) is BuildError


def test_what_explains_itself_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    """The allocator prints that too where TensorRT could do with less."""
    (tmp_path / "stderr").write_text(NVMAP)
    for kind in ("ToleranceError", "UnavailableError", "CacheError"):
        _, watch = watched(Failed(kind, "m"))
        assert builder._failure(watch, 70, tmp_path).message == "m"
    _, watch = watched()
    assert "was killed" in builder._failure(watch, -signal.SIGKILL, tmp_path).message


def test_limits_of_memory_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    here, cancel = os.getpid(), threading.Event()
    monkeypatch.setattr(builder, "available_bytes", lambda: 100 << 20)
    builder._check(here, BuildLimits(memory_bytes=1 << 40, reserve_bytes=100 << 20, timeout_s=None), cancel, 1e9)
    with pytest.raises(BuildKilledError, match=r"and 1 MiB are allowed; raise --memory"):
        builder._check(here, BuildLimits(memory_bytes=1 << 20, reserve_bytes=None), cancel, 0)
    with pytest.raises(BuildKilledError, match="stopped with 100 MiB of memory left"):
        builder._check(here, BuildLimits(reserve_bytes=(100 << 20) + 1), cancel, 0)
    assert BuildLimits() == BuildLimits(memory_bytes=None, reserve_bytes=128 << 20, timeout_s=MAX_BUILD_S)
    with pytest.raises(BuildCancelledError, match="took longer than 14400 s"):
        builder._check(here, BuildLimits(reserve_bytes=None), cancel, MAX_BUILD_S + 1)
    monkeypatch.setattr(builder, "total_bytes", lambda: 8 << 20)
    with pytest.raises(BuildKilledError, match="and 7 MiB are allowed"):
        builder._check(here, BuildLimits(reserve_bytes=None), cancel, 0)
    assert resident_bytes(1 << 30) == 0
    assert 1 << 20 < resident_bytes(here) < 1 << 40


def test_a_kernel_that_does_not_say_what_is_free_stops_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "meminfo", dict)
    assert builder.available_bytes() == sys.maxsize
