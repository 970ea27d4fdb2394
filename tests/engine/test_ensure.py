"""From a task to a cached engine, with real child processes: built once, cancelled, starved, crashed and killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeinfer.engine.build import task as tasks
from edgeinfer.engine.build.builder import BuildLimits, BuildOutcome, available_bytes, run_build
from edgeinfer.engine.build.ensure import Candidate, _manifest, ensure_task, last_build_seconds
from edgeinfer.engine.build.progress import BuildProgress
from edgeinfer.engine.build.protocol import BuildRequest, Built
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.errors import BuildCancelledError, BuildError, BuildKilledError, CacheError, ToleranceError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.manifest import OutputError, Tolerance, Verification
from edgeinfer.errors import UnavailableError, UsageError
from tests.engine.plans import make_plan
from tests.engine.samples import NANODET, ORIN

pytestmark = pytest.mark.slow  # each build is a process
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def task(precision: str = "fp16", **extras: Any) -> Task:
    return make_task(NANODET, BuildOptions(precision=precision), ORIN, Extras(**extras))  # type: ignore[arg-type]


def child(mode: str) -> Any:
    """`run_build` with the test child. It finds the tests through PYTHONPATH, as its folder is the workspace."""
    return functools.partial(
        run_build, command=(sys.executable, "-c", f"from tests.engine.child import main; main({mode!r})")
    )


def build(
    cache: Cache,
    mode: str,
    what: Task | None = None,
    cancel: threading.Event | None = None,
    seen: list[BuildProgress] | None = None,
) -> CachedEngine:
    on_progress = (lambda _: None) if seen is None else seen.append
    return ensure_task(what or task(), cache, on_progress, cancel or threading.Event(), build=child(mode))


def assert_clean(cache: Cache) -> None:
    assert list(cache.tmp.iterdir()) == []
    assert list(cache.engines.iterdir()) == []


def test_builds_once_and_then_reuses(cache: Cache) -> None:
    seen: list[BuildProgress] = []
    engine = build(cache, "build", seen=seen)
    assert build(cache, "crash").read() == engine.read()  # no child is started
    record = engine.manifest
    assert record.fields == task().fields
    assert (record.build.how, record.build.warnings) == ("as it was", ("this TensorRT has no such thing",))
    assert record.build.log == ("INFO hello",)
    assert ("Working", 0.5) in {(moment.phase, moment.fraction) for moment in seen}
    assert list(cache.tmp.iterdir()) == []


def test_the_next_build_knows_how_long_the_last_one_took(cache: Cache) -> None:
    assert last_build_seconds(cache, task()) is None
    build(cache, "build")
    seen: list[BuildProgress] = []
    build(cache, "build", task("fp32"), seen=seen)
    assert {moment.estimate_s for moment in seen} == {1.5}


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("crash", BuildError, "crashed in the build .SIGSEGV"),
        ("killed", BuildKilledError, "was killed, most likely for lack of memory"),
        ("rubbish", BuildError, "ended with code 1 and no result: .*something odd"),
        ("fail", ToleranceError, "too far; try again"),
        ("full", CacheError, "no space left for the plan"),
    ],
)
def test_a_failed_build_leaves_nothing_and_says_why(
    cache: Cache, mode: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        build(cache, mode)
    assert type(caught.value) is kind
    assert_clean(cache)
    assert build(cache, "build").read()


def test_a_build_can_be_cancelled(cache: Cache) -> None:
    cancel = threading.Event()
    with pytest.raises(BuildCancelledError, match="was cancelled"):
        ensure_task(task(), cache, lambda _: cancel.set(), cancel, build=child("hang"))
    assert_clean(cache)


def test_a_build_that_takes_too_long_is_stopped(cache: Cache) -> None:
    with pytest.raises(BuildCancelledError, match=r"took longer than 0.5 s"):
        build(cache, "hang", task(limits=BuildLimits(timeout_s=0.5)))
    assert_clean(cache)


@pytest.mark.slow
def test_a_build_that_eats_too_much_is_stopped(cache: Cache) -> None:
    with pytest.raises(BuildKilledError, match=r"MiB of memory, and 128 MiB are allowed; raise --memory"):
        build(cache, "eat", task(limits=BuildLimits(memory_bytes=128 << 20)))
    assert_clean(cache)


def test_a_build_is_stopped_before_the_machine_is_out_of_memory(cache: Cache) -> None:
    with pytest.raises(BuildKilledError, match="MiB of memory left on this machine"):
        build(cache, "hang", task(limits=BuildLimits(reserve_bytes=1 << 60)))
    assert available_bytes() > 0
    assert_clean(cache)


def test_an_exception_in_the_callers_progress_kills_the_child(cache: Cache) -> None:
    def interrupt(_: BuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_task(task(), cache, interrupt, threading.Event(), build=child("hang"))
    assert_clean(cache)
    assert build(cache, "build").read()  # the lock is free


def test_waiting_for_another_build_can_be_cancelled(cache: Cache) -> None:
    cancel, seen = threading.Event(), []

    def on_progress(moment: BuildProgress) -> None:
        seen.append(moment.phase)
        cancel.set()

    with cache.lock(lambda _: None), pytest.raises(BuildCancelledError, match="waiting for another build"):
        ensure_task(task(), cache, on_progress, cancel, build=child("build"))
    assert seen == ["Waiting for another build"]


def test_what_somebody_else_built_meanwhile_is_taken(cache: Cache) -> None:
    """The cache is looked into again once the lock is had."""
    held = contextlib.ExitStack()
    held.enter_context(cache.lock(lambda _: None))

    def on_progress(_: BuildProgress) -> None:
        with held, cache.workspace() as work:
            built = outcome("fp16", 1.0, "passed", work)
            candidate = Candidate("fp16", work, built)
            cache.store(work, _manifest(task(), candidate, {}))

    def never(*_: object) -> BuildOutcome:
        raise AssertionError("it was there")

    found = ensure_task(task(), cache, on_progress, threading.Event(), build=never)
    assert found.key == task().key


def test_without_a_limit_nothing_is_pruned(cache: Cache) -> None:
    for precision in ("fp32", "fp16"):
        ready = scripted({precision: (1.0, "passed")}, [])
        ensure_task(task(precision, max_cache_bytes=None), cache, lambda _: None, threading.Event(), build=ready)
    assert len(cache.entries()) == 2


def test_rebuild_replaces_the_engine(cache: Cache) -> None:
    first = build(cache, "build").read()
    second = ensure_task(task(), cache, lambda _: None, threading.Event(), rebuild=True, build=child("build"))
    assert second.read() != first


def test_a_damaged_engine_is_built_again(cache: Cache) -> None:
    engine = build(cache, "build")
    (engine.folder / "engine.plan").write_bytes(b"ftrt")
    assert build(cache, "build").read()


def test_the_cache_is_pruned_after_a_build(cache: Cache) -> None:
    build(cache, "build", task("fp32"))
    kept = build(cache, "build", task("fp16", max_cache_bytes=0))
    assert [item.key for item in cache.entries()] == [kept.key]


BUILDER = """
import sys, threading
from pathlib import Path
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.build.ensure import ensure_task
from tests.engine.test_ensure import child, task
engine = ensure_task(task(), Cache(Path(sys.argv[1])), lambda _: None, threading.Event(), build=child(sys.argv[2]))
print(engine.manifest.plan_sha256)
"""


def start(cache: Cache, mode: str) -> subprocess.Popen[str]:
    """A process that builds."""
    command = [sys.executable, "-c", BUILDER, str(cache.root), mode]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.slow
def test_two_processes_build_once(cache: Cache) -> None:
    both = [start(cache, "slow") for _ in range(2)]
    digests = {process.communicate()[0] for process in both}
    assert len(digests) == 1, "plans of two builds differ, so one was built"
    assert [item.manifest.plan_sha256 for item in cache.entries() if isinstance(item, CachedEngine)] == [
        digests.pop().strip()
    ]


def descendants(pid: int) -> Iterator[int]:
    """Living children of a process."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            yield int(status.parent.name)


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def kill_during_build(cache: Cache, delay: float, victim: str, wait_for_child: bool = False) -> None:
    process = start(cache, "slow")
    wait_until(lambda: any(cache.tmp.iterdir()) or process.poll() is not None)
    if wait_for_child:
        wait_until(lambda: any(descendants(process.pid)))
    time.sleep(delay)
    children = list(descendants(process.pid))
    targets = {"parent": [process.pid], "child": children, "both": [process.pid, *children]}[victim]
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(map(alive, children)))


def tidied(cache: Cache) -> bool:
    """Sweeps as the next command would, once the last process of a killed build has let go of the lock."""
    cache.tidy()
    return not any(cache.tmp.iterdir())


@pytest.mark.parametrize("victim", ["parent", "child"])
def test_a_kill_of_either_side_leaves_nothing_at_once(cache: Cache, victim: str) -> None:
    kill_during_build(cache, 0.1, victim, wait_for_child=True)
    assert_clean(cache)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.long)])
def test_kills_leave_no_partial_file(cache: Cache, kills: int) -> None:
    rng = random.Random(7)
    finished = 0
    for _ in range(kills):
        kill_during_build(cache, rng.uniform(0, 0.9), rng.choice(["parent", "child", "both"]))
        wait_until(functools.partial(tidied, cache))
        for item in cache.entries():
            assert isinstance(item, CachedEngine)
            assert item.read()
            finished += 1
            cache.remove(item.key)
    assert finished < kills, "no kill came in time"
    assert build(cache, "build").read()


def outcome(precision: str, latency: float | None, state: Any, work: Path) -> BuildOutcome:
    plan = make_plan(ORIN.tensorrt, precision.encode())
    (work / "engine.plan").write_bytes(plan)
    errors = {"boxes": OutputError(3.0, 0.25, 10.0)} if latency else {}
    check = Verification(
        state=state, reason="" if latency else "no GPU", samples=2, inputs="noise", outputs=errors, latency_ms=latency
    )
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256(plan).hexdigest()
    built = Built(
        seconds=1, how=f"as {precision}", plan_bytes=len(plan), plan_sha256=digest, peak_rss_bytes=1, verification=check
    )
    return BuildOutcome(built, (), ())


def scripted(results: dict[str, tuple[float | None, str]], requests: list[str]) -> Any:
    """A build that gives prepared results."""

    def build(request: BuildRequest, *_: object) -> BuildOutcome:
        requests.append(request.precision)
        latency, state = results[request.precision]
        if state == "refused":
            raise BuildError(f"{request.precision} refused")
        return outcome(request.precision, latency, state, Path(request.work))

    return build


def best(
    cache: Cache, results: dict[str, tuple[float | None, str]], requests: list[str], **extras: Any
) -> CachedEngine:
    return ensure_task(
        task("best", **extras), cache, lambda _: None, threading.Event(), build=scripted(results, requests)
    )


def test_best_keeps_the_fastest_that_passes(cache: Cache, tmp_path: Path) -> None:
    from edgeinfer.engine.build.samples import SampleSource  # noqa: PLC0415

    (tmp_path / "a.npy").write_bytes(b"")
    requests: list[str] = []
    results: dict[str, tuple[float | None, str]] = {
        "int8": (1.0, "exceeded"),
        "fp16": (2.0, "passed"),
        "fp32": (3.0, "passed"),
    }
    engine = best(cache, results, requests, calibration=SampleSource(str(tmp_path / "a.npy")))
    assert requests == ["int8", "fp16", "fp32"]
    assert engine.manifest.build.precision == "fp16"
    assert engine.read().endswith(b"fp16")
    notes = engine.manifest.build.candidates
    assert (notes["fp16"], notes["fp32"]) == ("2.0 ms", "3.0 ms")
    assert "boxes max 3 mean 0.25 of 10" in notes["int8"]


def test_best_takes_the_slower_one_where_the_faster_is_refused(cache: Cache) -> None:
    requests: list[str] = []
    engine = best(cache, {"fp16": (1.0, "refused"), "fp32": (3.0, "passed")}, requests)
    assert (requests, engine.manifest.build.precision) == (["fp16", "fp32"], "fp32")


def test_best_without_any_that_passes(cache: Cache) -> None:
    with pytest.raises(BuildError, match=r"no precision gave an engine to keep: fp16: .*fp32: "):
        best(cache, {"fp16": (1.0, "exceeded"), "fp32": (3.0, "refused")}, [])
    assert_clean(cache)


def test_best_needs_a_device_to_measure_on(cache: Cache) -> None:
    requests: list[str] = []
    with pytest.raises(UnavailableError, match="can't be measured here: no GPU"):
        best(cache, {"fp16": (None, "skipped")}, requests)
    assert requests == ["fp16"]


def test_an_engine_beyond_the_tolerance_is_refused_with_the_numbers(cache: Cache) -> None:
    build = scripted({"fp16": (1.0, "exceeded")}, [])
    with pytest.raises(ToleranceError, match=r"boxes max 3 mean 0.25 of 10 \(2 samples, noise\)"):
        ensure_task(task(), cache, lambda _: None, threading.Event(), build=build)
    assert_clean(cache)
    kept = ensure_task(task(keep_beyond_tolerance=True), cache, lambda _: None, threading.Event(), build=build)
    assert kept.manifest.verification.state == "exceeded"


def test_a_plan_of_another_tensorrt_than_expected_is_refused(cache: Cache) -> None:
    other = make_task(NANODET, BuildOptions(), msgspec.structs.replace(ORIN, tensorrt=(8, 6, 0, 12)), Extras())
    with pytest.raises(BuildError, match="names another TensorRT"):
        ensure_task(other, cache, lambda _: None, threading.Event(), build=scripted({"fp16": (1.0, "passed")}, []))


@pytest.mark.parametrize(
    ("total", "available", "workspace"),
    [(8 << 30, 7 << 30, 2 << 30), (8 << 30, 3 << 30, 3 << 29), (8 << 30, 100 << 20, 64 << 20)],
)
def test_the_workspace_is_limited_where_memory_is_shared_and_the_key_does_not_know(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, available: int, workspace: int
) -> None:
    before = task().key
    monkeypatch.setattr(tasks, "total_bytes", lambda: total)
    monkeypatch.setattr(tasks, "available_bytes", lambda: available)
    assert task().request("fp16", tmp_path, cache).options.pools == {"WORKSPACE": workspace}
    assert task().key == before


def test_the_workspace_is_as_large_as_somebody_says_and_without_limit_on_a_card(cache: Cache, tmp_path: Path) -> None:
    own = make_task(NANODET, BuildOptions(pools={"WORKSPACE": 5}), ORIN)
    assert own.request("fp16", tmp_path, cache).options.pools == {"WORKSPACE": 5}
    discrete = make_task(NANODET, BuildOptions(), msgspec.structs.replace(ORIN, integrated=False))
    assert discrete.request("fp16", tmp_path, cache).options.pools == {}


def test_int8_needs_data() -> None:
    with pytest.raises(UsageError, match="int8 needs inputs to calibrate with"):
        task("int8")


def test_calibration_data_is_part_of_the_key(tmp_path: Path) -> None:
    from edgeinfer.engine.build.samples import SampleSource  # noqa: PLC0415

    keys = set()
    for content in (b"a", b"b"):
        (tmp_path / "x.npy").write_bytes(content)
        keys.add(task("int8", calibration=SampleSource(str(tmp_path))).key)
    keys.add(
        make_task(
            NANODET,
            BuildOptions(precision="int8", calibrator="minmax"),
            ORIN,
            Extras(calibration=SampleSource(str(tmp_path))),
        ).key
    )
    assert len(keys) == 3
    assert task("fp16", calibration=SampleSource(str(tmp_path))).key == task("fp16").key
    assert task("fp16", tolerance=Tolerance(1.0, 1.0), verify=False).key == task("fp16").key
    assert (
        json.loads(msgspec.json.encode(task().request("fp16", tmp_path, Cache(tmp_path / "c"))))["precision"] == "fp16"
    )
