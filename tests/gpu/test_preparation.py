"""From a model to a running engine, on a simulated GPU: out of the cache, built, built again, or the user's own."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeinfer.backends import _raw, tensorrt
from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.backends.tensorrt import Options, Preparation
from edgeinfer.bench import tuning as bench_tuning
from edgeinfer.config.card import Model, ToleranceCard
from edgeinfer.engine import toolkit
from edgeinfer.engine.build import card_samples
from edgeinfer.engine.build.builder import BuildOutcome
from edgeinfer.engine.build.ensure import Build, ensure_task
from edgeinfer.engine.build.progress import BuildProgress, OnProgress
from edgeinfer.engine.build.protocol import BuildRequest
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.scratch import ensure_somewhere
from edgeinfer.engine.build.task import Task
from edgeinfer.engine.build.tuned import tunable, with_opt
from edgeinfer.engine.errors import PlanError, UnsafeError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store import tuning
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.manifest import DlaShare, Tolerance
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.errors import FatalError, OutOfMemoryError, UnavailableError
from tests.engine.quick import built
from tests.gpu import simulated
from tests.gpu.simulated import Simulation


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return simulated.echo_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return simulated.install(monkeypatch)


@pytest.fixture
def kit(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> Toolkit:
    found = simulated.toolkit_on(device)
    monkeypatch.setattr(toolkit, "load", lambda *_: found)
    return found


def scripted(kit: Toolkit, requests: list[BuildRequest]) -> Build:
    """Builds in no time."""

    def build(request: BuildRequest, _: object, on_progress: OnProgress, *__: object) -> BuildOutcome:
        requests.append(request)
        on_progress(BuildProgress("Working", 0.5, 1.0))
        plan = simulated.echo_plan(kit, number=len(requests))
        (Path(request.work) / "engine.plan").write_bytes(plan)
        return BuildOutcome(built(plan), (), ())

    return build


@pytest.fixture
def builds(kit: Toolkit, monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """What was built."""
    requests: list[BuildRequest] = []
    monkeypatch.setattr(
        tensorrt, "ensure_somewhere", functools.partial(ensure_somewhere, build=scripted(kit, requests))
    )
    return requests


Measure = Callable[..., dict[str, float]]


@pytest.fixture
def tune(kit: Toolkit, builds: list[BuildRequest]) -> Callable[..., tuple[CachedEngine, bool]]:
    def tuned(task: Task, cache: Cache, measure: Measure, told: list[str], rebuild: bool = False) -> Any:
        def build(one: Task) -> CachedEngine:
            return ensure_task(one, cache, lambda _: None, threading.Event(), rebuild, scripted(kit, builds))

        return bench_tuning.tune(task, simulated.INPUT, [16], cache, measure, build, told.append)

    return tuned


Prepare = Callable[..., Preparation]


@pytest.fixture
def prepare(model: Model, builds: list[BuildRequest], tmp_path: Path) -> Prepare:
    def prepared(max_batch: int | None = None, model: Model = model, **options: Any) -> Preparation:
        return tensorrt.prepare(model, max_batch, Options(cache=str(tmp_path / "cache"), **options))

    return prepared


def opened(prepared: Preparation, seen: list[BuildProgress] | None = None) -> TensorRt:
    return prepared.open(lambda _: None if seen is None else seen.append(_), threading.Event())


def entry(prepared: Preparation) -> CachedEngine:
    (engine,) = prepared._cache.entries()
    assert isinstance(engine, CachedEngine)
    return engine


def test_an_engine_is_built_once_and_is_on_probation_while_it_runs(
    prepare: Prepare, builds: list[BuildRequest], device: Simulation
) -> None:
    first, seen = prepare(), list[BuildProgress]()
    assert not first.cached
    backend = opened(first, seen)
    assert [moment.reason for moment in seen] == ["the cache holds no engine of it"]
    assert (backend.name, backend.engine_key, entry(first).strikes) == ("tensorrt-fp16", entry(first).key, 1)
    assert (backend.slots, backend.max_batch) == (3, 4)
    backend.close()
    assert (device.alive, entry(first).strikes) == (0, 0)
    second = prepare()
    assert second.cached
    opened(second).close()
    assert len(builds) == 1


def test_a_lack_of_memory_is_not_held_against_an_engine(
    prepare: Prepare, builds: list[BuildRequest], device: Simulation
) -> None:
    opened(prepare()).close()
    found = prepare()
    for _ in range(4):
        device.fail["cudaMalloc"] = [2]
        with pytest.raises(OutOfMemoryError):
            opened(found)
    assert entry(found).strikes == 0
    opened(prepare()).close()
    assert len(builds) == 1


def test_options_reach_the_engine_and_how_it_runs(prepare: Prepare, builds: list[BuildRequest]) -> None:
    backend = opened(prepare(2, streams=4, precision="fp32", graphs=False, gpu_preprocess=False))
    backend.prepare(None)
    assert (backend.name, backend.slots, backend.max_batch) == ("tensorrt-fp32", 5, 2)
    assert "no CUDA graphs, preprocessing on the CPU" in backend.detail
    assert not backend._settings.spin
    assert opened(prepare(spin=True))._settings.spin
    assert [request.options.batch for request in builds] == [(1, 2, 2), (1, 4, 4)]


def test_the_usual_batch_is_the_one_that_was_found_best_unless_the_user_names_one(
    prepare: Prepare, builds: list[BuildRequest]
) -> None:
    first = prepare()
    assert first._task is not None
    assert (first._task.options.batch, first._task.options.single) == ((1, 4, 4), False)
    tuning.remember(first._cache, first._task.fields, tuning.Choice(2))
    asked: list[dict[str, Any]] = [{}, {"opt_batch": 3}, {"profiles": 2}]
    tasks = [task for task in (prepare(**options)._task for options in asked) if task is not None]
    assert [(task.options.batch[1], task.options.single) for task in tasks] == [(2, False), (3, False), (2, True)]
    assert prepare(precision="fp32")._task.options.batch == (1, 4, 4), "found for another engine"  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"{", b'{"opt": 99}', b'{"opt": "x"}', b"[" * 50_000, b"\xff"])
def test_a_choice_that_can_not_be_read_or_does_not_fit_is_none(prepare: Prepare, content: bytes) -> None:
    first = prepare()
    assert first._task is not None
    tuning.remember(first._cache, first._task.fields, tuning.Choice(2))
    (path,) = (first._cache.root / "tuning").iterdir()
    path.write_bytes(content)
    again = prepare()._task
    assert again is not None
    assert again.options.batch == (1, 4, 4)


def test_the_fastest_engine_is_kept_and_remembered(prepare: Prepare, builds: list[BuildRequest], tune: Any) -> None:
    first = prepare(max_batch=16)
    task, cache, told = first._task, first._cache, list[str]()
    assert task is not None

    def measure(candidate: Task, *_: object) -> dict[str, float]:
        return {"3x16": 100.0 if candidate.options.batch[1] == 8 else 50.0}

    engine, had = tune(task, cache, measure, told)
    assert not had
    assert [request.options.batch for request in builds] == [(1, 16, 16), (1, 8, 16), (1, 4, 16)]
    assert told == [f"opt {opt}: 3x16 {rate} fps" for opt, rate in ((16, 50), (8, 100), (4, 50))]
    assert [entry.key for entry in cache.entries() if isinstance(entry, CachedEngine)] == [engine.key]
    again = prepare(max_batch=16)
    assert again._task is not None
    assert (again._task.key, again.cached) == (engine.key, True), "the daemon takes it by itself"
    choice = tuning.recall(cache, task.fields)
    assert choice is not None
    assert choice.fps["8"] == {"3x16": 100.0}
    told.clear()
    again, had = tune(task, cache, measure, told)
    assert (again.key, had, len(builds)) == (engine.key, True, 5)
    again, had = tune(task, cache, measure, told, rebuild=True)
    assert (again.key, had, len(builds)) == (engine.key, True, 8)
    assert cache.usable(engine.key) is not None


def test_candidates_that_are_the_same_engine_are_built_once_and_it_stays(
    prepare: Prepare, builds: list[BuildRequest], tune: Any
) -> None:
    first = prepare(max_batch=16)
    assert first._task is not None
    (name,) = first._task.fields.profiles
    shapes = {name: first._task.fields.profiles[name]}
    task = with_opt(replace(first._task, options=msgspec.structs.replace(first._task.options, shapes=shapes)), 16)
    engine, _ = tune(task, first._cache, lambda *_: {"3x16": 50.0}, [])
    assert len(builds) == 1
    assert first._cache.usable(engine.key) is not None
    assert (tunable(task), tunable(first._task)) == (False, True)


def test_a_choice_that_can_not_be_remembered_costs_no_measurement(
    prepare: Prepare, builds: list[BuildRequest], tune: Any
) -> None:
    first, told = prepare(max_batch=16), list[str]()
    assert first._task is not None
    tuning.remember(first._cache, first._task.fields, tuning.Choice(8))
    (path,) = (first._cache.root / "tuning").iterdir()
    path.unlink()
    path.mkdir()
    engine, _ = tune(first._task, first._cache, lambda *_: {"3x16": 50.0}, told)
    assert first._cache.usable(engine.key) is not None
    assert told[-1].startswith("warning: the choice is not remembered, so that opt 16 must be named: ")


def test_build_options_are_those_of_the_configuration() -> None:
    options = Options(
        precision="int8",
        opt_level=2,
        workspace="1G",
        tactic_sources=("CUBLAS",),
        dla=1,
        plugins=("/p.so",),
        calibrator="minmax",
    )
    assert tensorrt.build_options(options, 8) == BuildOptions(
        precision="int8",
        batch=(8, 8, 8),
        pools={"WORKSPACE": 1 << 30},
        optimization_level=2,
        tactic_sources=("CUBLAS",),
        dla_core=1,
        plugins=("/p.so",),
        calibrator="minmax",
    )
    assert tensorrt.build_options(Options(), 1) == BuildOptions(batch=(1, 1, 1))


def test_an_engine_is_checked_on_the_photographs_or_on_the_calibration_data(model: Model) -> None:
    card = model.card
    found = tensorrt.extras_of(card, Options())
    assert (found.calibration, found.verification) == (None, SampleSource(str(card_samples.PHOTOS), card.input))
    given = tensorrt.extras_of(card, Options(calibration_data="/pictures"))
    assert (given.calibration, given.verification) == (SampleSource("/pictures", card.input), None)
    strict = msgspec.structs.replace(card, tolerance=ToleranceCard(max=0.2, mean=0.1))
    assert tensorrt.extras_of(strict, Options()).tolerance == Tolerance(0.2, 0.1)


def test_an_engine_that_tensorrt_refuses_is_built_again_once(
    prepare: Prepare, builds: list[BuildRequest], kit: Toolkit, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    opened(prepare()).close()
    prepared, seen, refusals = prepare(), list[BuildProgress](), [1]
    load = kit.trt.Runtime.deserialize_cuda_engine

    def refuse_once(self: Any, plan: bytes) -> Any:
        if refusals and refusals.pop():
            self._logger.log(
                kit.trt.ILogger.Severity.ERROR, "the engine plan file is generated on an incompatible device"
            )
            return None
        return load(self, plan)

    monkeypatch.setattr(kit.trt.Runtime, "deserialize_cuda_engine", refuse_once)
    with caplog.at_level(logging.WARNING):
        backend = opened(prepared, seen)
    assert len(builds) == 2
    assert "building the engine again" in caplog.text
    (reason,) = {moment.reason for moment in seen}
    assert reason.startswith("TensorRT refused its engine: loading the engine failed")
    assert (prepared._cache.quarantined / entry(prepared).key).exists()
    assert backend.engine_key == entry(prepared).key
    refusals.extend([1, 1])
    backend.close()
    with pytest.raises(PlanError, match="incompatible device"):
        opened(prepare())


def test_without_a_gpu_there_is_nothing_to_prepare(prepare: Prepare, device: Simulation) -> None:
    device.fail["cudaStreamCreateWithFlags"] = [100]
    with pytest.raises(UnavailableError, match=r"CUDA finds no GPU .*; see edgeinfer doctor"):
        prepare()


def own_plan(model: Model, folder: Path, plan: bytes) -> Model:
    path = folder / "mine.engine"
    path.write_bytes(plan)
    path.chmod(0o600)
    return msgspec.structs.replace(model, path=path)


def test_the_users_own_plan_is_run_as_it_is(
    prepare: Prepare, builds: list[BuildRequest], kit: Toolkit, model: Model, tmp_path: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare(model=own_plan(model, tmp_path, simulated.echo_plan(kit)))
    assert "no side-car" in caplog.text
    assert prepared.cached
    backend = opened(prepared)
    assert (backend.name, backend.engine_key, builds) == ("tensorrt-plan", "", [])
    backend.blame()
    backend.close()


def test_a_plan_that_does_not_fit_or_is_open_to_others_is_refused(
    prepare: Prepare, kit: Toolkit, device: Simulation, model: Model, tmp_path: Path
) -> None:
    other = simulated.echo_plan(simulated.toolkit_on(device, "8.6.0"))
    with pytest.raises(PlanError, match=r"built by tensorrt 8.6.0.12, and here is tensorrt 10.3.0.30"):
        prepare(model=own_plan(model, tmp_path, other))
    mine = own_plan(model, tmp_path, simulated.echo_plan(kit))
    mine.path.chmod(0o666)
    with pytest.raises(UnsafeError, match="others may write it"):
        prepare(model=mine)


def test_a_sweep_frees_what_it_took(
    model: Model, builds: list[BuildRequest], device: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.zeros((9, 9, 3), np.uint8)]
    options = Options(cache=str(tmp_path / "cache"))
    with_singles = list[bool]()

    def noted(kit: Toolkit, plan: bytes, card: Any, settings: Any, probation: Any) -> TensorRt:
        with_singles.append(settings.singles)
        return TensorRt(kit, plan, card, settings, probation)

    monkeypatch.setattr(tensorrt, "TensorRt", noted)
    rates, profiles = tensorrt.raw_sweep(model, None, options, images, 0.001)
    assert set(profiles) == {"1", "4"}
    assert list(rates) == [f"{streams}x{batch}" for batch in (1, 4) for streams in (1, 2, 4, 8)]
    assert device.alive == 0
    assert with_singles == [True, False], "for batches of one they are needed, and from the others they take memory"

    def fail(*_: object) -> None:
        raise FatalError("no")

    monkeypatch.setattr(_raw, "_sweep", fail)
    with pytest.raises(FatalError):
        tensorrt.raw_sweep(model, None, options, images, 0.001)
    assert device.alive == 0


def test_opening_waits_for_the_build(model: Model, builds: list[BuildRequest], tmp_path: Path) -> None:
    backend = tensorrt.open(model, None, Options(cache=str(tmp_path / "cache")))
    assert (len(builds), backend.name) == (1, "tensorrt-fp16")


def test_a_dla_runs_batches_of_one_by_default_and_says_how_much_it_runs(
    prepare: Prepare, kit: Toolkit, builds: list[BuildRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.trt.world.dla_cores = 2
    share = DlaShare(core=1, able=41, layers=53, parts=2)

    def build(request: BuildRequest, *_: object) -> BuildOutcome:
        builds.append(request)
        size = request.options.batch[2]
        plan = simulated.echo_plan(kit, core=1, least=size, largest=size)
        (Path(request.work) / "engine.plan").write_bytes(plan)
        return BuildOutcome(msgspec.structs.replace(built(plan), dla=share), (), ())

    monkeypatch.setattr(tensorrt, "ensure_somewhere", functools.partial(ensure_somewhere, build=build))
    for asked, batch in ((None, 1), (4, 4)):
        backend = opened(prepare(asked, dla=1))
        backend.prepare(None)
        assert (builds[-1].options.batch, backend.max_batch) == ((batch,) * 3, batch)
        assert "no CUDA graphs" in backend.detail
        assert backend.detail.endswith("41 of 53 layers on DLA core 1, in 2 parts")
        backend.close()
    kit.trt.world.dla_cores = 1
    with pytest.raises(UnavailableError, match=r"DLA core 1 does not exist"):
        opened(prepare(dla=1))
