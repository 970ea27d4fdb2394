"""The way to an engine: from the cache, or built now. What the daemon and the commands call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeinfer import __version__
from edgeinfer.engine.build import verify
from edgeinfer.engine.build.advice import reason_to_build
from edgeinfer.engine.build.builder import BuildLimits, BuildOutcome, run_build
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.build.protocol import BuildRequest
from edgeinfer.engine.build.task import Extras, Task, make_task
from edgeinfer.engine.errors import BuildCancelledError, BuildError, ToleranceError
from edgeinfer.engine.options import BuildOptions, Precision
from edgeinfer.engine.store.cache import PLAN, Cache, CachedEngine
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import BuildRecord, Manifest
from edgeinfer.engine.store.plan import read_header
from edgeinfer.errors import UnavailableError
from edgeinfer.gpu.patience import PATIENCE

log = logging.getLogger(__name__)

Build = Callable[[BuildRequest, BuildLimits, OnProgress, threading.Event, int, float | None], BuildOutcome]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan that was built and may be kept. It lies in `folder`."""

    precision: Precision
    folder: Path
    outcome: BuildOutcome


def ensure(
    model: Path,
    options: BuildOptions,
    machine: Target,
    cache: Cache,
    extras: Extras | None = None,
    on_progress: OnProgress = lambda _: None,
    cancel: threading.Event | None = None,
) -> CachedEngine:
    """The engine of this model for this machine: from the cache, else built in a child process and put there.

    Blocks for the whole build; `on_progress` is called from this thread, several times a second, and `cancel` may
    be set from another one. Of several processes that want the same engine one builds and the others wait for it.
    Raises EdgeinferError; whatever happens, the cache holds the whole engine afterwards, or nothing of it.
    """
    return ensure_task(make_task(model, options, machine, extras), cache, on_progress, cancel or threading.Event())


def ensure_task(
    task: Task,
    cache: Cache,
    on_progress: OnProgress,
    cancel: threading.Event,
    rebuild: bool = False,
    build: Build = run_build,
) -> CachedEngine:
    """Like `ensure`, for a prepared task. `rebuild`: build even where the cache has the engine.

    Why it builds goes into the log, and to `on_progress` with every moment.
    """
    found = None if rebuild else cache.usable(task.key)
    if found is not None:
        return found
    with cache.lock(lambda seconds: _wait(seconds, on_progress, cancel)) as held:
        found = None if rebuild else cache.usable(task.key)  # somebody else may have built it meanwhile
        if found is not None:
            return found
        if (lack := task.lack_of_tools()) is not None:
            raise lack
        reason = "that was asked for" if rebuild else reason_to_build(task, cache)
        log.info("%s: building an engine, as %s", task.model.path.name, reason)
        estimate = last_build_seconds(cache, task)

        def tell(moment: BuildProgress) -> None:
            on_progress(replace(moment, reason=reason))

        with cache.workspace() as work, PATIENCE.building():
            engine = _build(
                task, cache, work, lambda request: build(request, task.extras.limits, tell, cancel, held, estimate)
            )
    if (share := engine.manifest.build.dla) is not None:
        log.log(logging.INFO if share.used else logging.WARNING, "%s: %s", task.model.path.name, share)
    if task.extras.max_cache_bytes is not None:
        cache.prune(task.extras.max_cache_bytes, keep=engine.key)
    return engine


def _build(task: Task, cache: Cache, work: Path, build: Callable[[BuildRequest], BuildOutcome]) -> CachedEngine:
    """Builds every precision that is asked for, and stores the one to keep."""
    candidates: list[Candidate] = []
    notes: dict[str, str] = {}
    for precision in task.precisions():
        folder = work / precision
        folder.mkdir(mode=0o700)
        try:
            candidate = Candidate(precision, folder, build(task.request(precision, folder, cache)))
            _judge(task, candidate)
        except (BuildError, UnavailableError) as error:
            if task.options.precision != "best":
                raise
            notes[precision] = error.message
            continue
        check = candidate.outcome.built.verification
        if task.options.precision == "best" and check.latency_ms is None:
            raise UnavailableError(
                f"{task.model.path}: the best precision can't be measured here: {check.reason}", "name a precision"
            )
        candidates.append(candidate)
        notes[precision] = f"{check.latency_ms} ms"
    chosen = _fastest(task, candidates, notes)
    (chosen.folder / PLAN).rename(work / PLAN)
    return cache.store(work, _manifest(task, chosen, notes if task.options.precision == "best" else {}))


def _judge(task: Task, candidate: Candidate) -> None:
    """Raises BuildError where the plan must not be kept."""
    header, built = read_header(candidate.folder / PLAN), candidate.outcome.built
    if header.flavour != task.machine.flavour or not header.built_by(task.machine.tensorrt):
        raise BuildError(
            f"{task.model.path}: the plan's header names another TensorRT ({header.version})",
            "restart after updating TensorRT",
        )
    check = built.verification
    if check.state == "exceeded" and not task.extras.keep_beyond_tolerance:
        raise ToleranceError(
            f"{task.model.path}: the {candidate.precision} engine is too far off: {verify.describe(check)}",
            "use a higher precision, calibrate on better data, or keep it with --keep-anyway",
        )


def _fastest(task: Task, candidates: list[Candidate], notes: dict[str, str]) -> Candidate:
    if not candidates:
        reasons = "; ".join(f"{precision}: {note}" for precision, note in notes.items())
        raise BuildError(f"{task.model.path}: no precision gave an engine to keep: {reasons}", "name one to see more")
    return min(candidates, key=lambda candidate: candidate.outcome.built.verification.latency_ms or 0.0)


def _manifest(task: Task, chosen: Candidate, notes: dict[str, str]) -> Manifest:
    built, outcome = chosen.outcome.built, chosen.outcome
    record = BuildRecord(
        seconds=built.seconds,
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        precision=chosen.precision,
        how=built.how,
        edgeinfer=__version__,
        peak_rss_bytes=built.peak_rss_bytes,
        warnings=outcome.warnings,
        log=outcome.log,
        candidates=notes,
        dla=built.dla,
    )
    return Manifest(
        key=task.key,
        model_name=task.model.path.name,
        fields=task.fields,
        plan_bytes=built.plan_bytes,
        plan_sha256=built.plan_sha256,
        build=record,
        verification=built.verification,
    )


def last_build_seconds(cache: Cache, task: Task) -> float | None:
    """How long the latest build of the same model took, in seconds; None for the first. Same precision goes first."""
    same = [
        (record.fields.precision == task.options.precision, record.build.finished_at, record.build.seconds)
        for record in (item.manifest for item in cache.entries() if isinstance(item, CachedEngine))
        if record.model_name == task.model.path.name
    ]
    return max(same)[2] if same else None


def _wait(seconds: float, on_progress: OnProgress, cancel: threading.Event) -> None:
    if cancel.is_set():
        raise BuildCancelledError(
            f"gave up after {seconds:.0f} s of waiting for another build", "nothing is left of it"
        )
    on_progress(BuildProgress("Waiting for another build", None, seconds))
