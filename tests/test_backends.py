"""What every backend owes the pipeline, whoever wrote it; TensorRT's on a GPU that is simulated, and on a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from edgeinfer.backends import (
    BackendModule,
    RawBackendModule,
    StagedBackendModule,
    SweepingBackendModule,
    onnxruntime,
    tensorrt,
)
from edgeinfer.backends._tensorrt import Settings, TensorRt
from edgeinfer.bench.measure import raw_run
from edgeinfer.config import plugins
from edgeinfer.config.card import Model
from edgeinfer.config.settings import load_config
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, UnavailableError
from edgeinfer.interfaces import Backend, Filter, Slot
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Float32, Image
from tests.gpu import simulated

INPUT = simulated.INPUT
BATCH = 4
NO_PICTURE: Image = np.zeros((0, 5, 3), np.uint8)


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network whose two outputs are its input, reshaped: what comes out shows which pictures went in, and how."""
    return simulated.echo_model(tmp_path_factory.mktemp("models"))


@dataclass
class Case:
    """A backend, and how a test makes it slow or go wrong. `exact`: it preprocesses with the CPU's own numbers."""

    backend: Backend
    hold: Callable[[bool], None] | None
    break_submit: Callable[[], None] | None
    starve: Callable[[], None] | None
    exact: bool = True
    also: dict[str, Any] = field(default_factory=dict)
    closed: bool = False

    def close(self) -> None:
        self.closed = True
        self.backend.close()


class Gate:
    """Stands before ONNX Runtime's session: holds its runs up, or lets a batch of two fail."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.open = threading.Event()
        self.open.set()
        self.failure = ""

    def run(self, names: list[str], feed: dict[str, Float32], control: Any) -> Any:
        self.open.wait()
        if self.failure and len(feed["images"]) == 2:
            raise RuntimeError(self.failure)
        return self._session.run(names, feed, control)

    def hold(self, on: bool) -> None:
        (self.open.clear if on else self.open.set)()

    def starve(self) -> None:
        self.failure = "Failed to allocate memory for requested buffer of size 268435456"


def on_onnx_runtime(model: Model, monkeypatch: pytest.MonkeyPatch, _: Path) -> Case:
    backend = onnxruntime.open(model, BATCH, onnxruntime.Options(threads=1, streams=2))
    gate = Gate(backend._session)
    backend._session = gate

    def break_submit() -> None:
        def refuse(*_: object) -> None:
            monkeypatch.undo()
            raise OutOfMemoryError("no memory for a thread")

        monkeypatch.setattr(backend._pool, "submit", refuse)

    return Case(backend, gate.hold, break_submit, gate.starve)


def on_plain(model: Model, _: pytest.MonkeyPatch, __: Path) -> Case:
    module = plugins.load("backends", "tests.plain_backend")
    backend = module.open(model, BATCH, module.Options())
    error = OutOfMemoryError("no memory")
    return Case(
        backend,
        lambda on: setattr(backend, "held", on),
        lambda: backend.broken.update(submit=error),
        lambda: backend.broken.update(collect=error),
    )


def on_simulated(**changes: Any) -> Callable[[Model, pytest.MonkeyPatch, Path], Case]:
    def make(model: Model, monkeypatch: pytest.MonkeyPatch, _: Path) -> Case:
        device = simulated.install(monkeypatch)
        kit = simulated.toolkit_on(device)
        known = Settings(BATCH, 2, spin=False, graphs=True, gpu_preprocess=True, plugins=(), label="fp16")
        settings = Settings(**{**{name: getattr(known, name) for name in Settings.__slots__}, **changes})
        backend = TensorRt(kit, simulated.echo_plan(kit), model.card.input, settings, None)
        return Case(
            backend,
            lambda on: setattr(device, "hold", on),
            lambda: device.fail.update(cudaEventRecord=[2]),
            lambda: device.fail.update(cudaEventQuery=[2]),
            exact=not settings.gpu_preprocess,
            also={"device": device, "kit": kit},
        )

    return make


def on_tensorrt(model: Model, _: pytest.MonkeyPatch, folder: Path) -> Case:
    sources = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")  # the others need cuBLAS and cuDNN
    wanted = tensorrt.Options(precision="fp32", opt_level=0, tactic_sources=sources, cache=str(folder / "engines"))
    try:
        prepared = tensorrt.Preparation(model, BATCH, wanted)
    except EdgeinferError as error:
        pytest.skip(f"needs TensorRT and a GPU: {error}")
    backend = prepared.open(lambda _: None, threading.Event())
    return Case(backend, None, None, None, exact=False)


CASES = {
    "onnxruntime": on_onnx_runtime,
    "plain": on_plain,
    "simulated": on_simulated(),
    "simulated-plain": on_simulated(graphs=False, gpu_preprocess=False, spin=True),
    "tensorrt": on_tensorrt,
}


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, echo: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Case]:
    made = CASES[request.param](echo, monkeypatch, tmp_path)
    made.backend.prepare(None)
    yield made
    if made.hold:
        made.hold(False)
    if not made.closed:
        made.close()


@pytest.fixture
def backend(case: Case) -> Backend:
    return case.backend


def picture(seed: int, width: int = 20, height: int = 12) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def acquired(backend: Backend) -> Slot:
    slot = backend.acquire()
    assert slot is not None
    return slot


def started(backend: Backend, *images: Image) -> Slot:
    slot = acquired(backend)
    backend.load(slot, images)
    backend.submit(slot)
    return slot


def collected(backend: Backend) -> Slot:
    slot = backend.collect(30)
    assert slot is not None
    return slot


def assert_shows(case: Case, slot: Slot, images: list[Image]) -> None:
    """The outputs are the inputs of exactly these pictures, in order."""
    assert slot.count == len(images)
    assert slot.infer_ms >= 0
    for name in ("boxes", "scores"):
        found = slot.outputs[name]
        assert found.shape == (len(images), 48, 4)
        for row, image in zip(found, images, strict=True):
            expected: Float32 = np.empty((3, 8, 8), np.float32)
            Preprocessor(INPUT)(image, expected)
            difference = np.abs(row.reshape(3, 8, 8) - expected) * np.array(INPUT.std)[:, None, None]
            assert difference.max() <= (0 if case.exact else 1.0)


def test_batches_come_back_in_order_with_their_own_pictures(case: Case) -> None:
    backend = case.backend
    images = [picture(seed) for seed in range(24)]
    waiting, flights, done = list(images), list[list[Image]](), 0
    while waiting or flights:
        slot = backend.acquire() if waiting else None
        if slot is not None:
            batch = [waiting.pop(0) for _ in range(min(len(waiting), 1 + len(flights)))]
            backend.load(slot, batch)
            backend.submit(slot)
            flights.append(batch)
            continue
        found = collected(backend)
        batch = flights.pop(0)
        assert_shows(case, found, batch)
        backend.release(found)
        done += len(batch)
    assert done == len(images)


def test_as_many_slots_as_it_says_and_then_none(backend: Backend) -> None:
    slots = [acquired(backend) for _ in range(backend.slots)]
    assert len({id(slot) for slot in slots}) == backend.slots >= 2
    assert backend.acquire() is None
    for slot in slots:
        backend.load(slot, [picture(1)])
        backend.submit(slot)
    assert backend.acquire() is None
    for slot in slots:
        assert collected(backend) is slot
    assert backend.acquire() is None, "what was collected stays with the pipeline until it is released"
    backend.release(slots[0])
    assert backend.acquire() is slots[0]
    assert backend.acquire() is None


def test_the_largest_batch(case: Case) -> None:
    backend = case.backend
    assert backend.max_batch == BATCH
    assert 1 <= backend.lane_depth <= BATCH
    images = [picture(seed) for seed in range(BATCH)]
    started(backend, *images)
    assert_shows(case, collected(backend), images)


def test_letterboxes_are_those_of_the_pictures(backend: Backend) -> None:
    slot = acquired(backend)
    sizes = [(20, 12), (3, 9), (8, 8)]
    boxes = backend.load(slot, [picture(1, *size) for size in sizes])
    out = np.empty((3, 8, 8), np.float32)
    assert list(boxes) == [Preprocessor(INPUT)(picture(1, *size), out) for size in sizes]
    backend.release(slot)


def test_outputs_are_what_the_specs_say(backend: Backend) -> None:
    assert [(spec.name, spec.shape) for spec in backend.output_specs] == [
        ("boxes", (-1, 48, 4)),
        ("scores", (-1, 48, 4)),
    ]
    assert all("float" in spec.dtype.lower() for spec in backend.output_specs)
    assert backend.name
    assert backend.detail
    assert backend.versions
    started(backend, picture(1), picture(2))
    outputs = collected(backend).outputs
    assert set(outputs) == {"boxes", "scores"}
    assert all(array.dtype == np.float32 for array in outputs.values())


def test_a_load_that_fails_leaves_the_slot_with_the_caller(case: Case) -> None:
    backend = case.backend
    slots = [acquired(backend) for _ in range(backend.slots)]
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever a picture without pixels leads to)
        backend.load(slots[0], [picture(1), NO_PICTURE])
    assert backend.acquire() is None
    backend.release(slots[0])
    assert backend.acquire() is slots[0]
    backend.load(slots[0], [picture(2)])
    backend.submit(slots[0])
    assert_shows(case, collected(backend), [picture(2)])


def test_a_submit_that_fails_leaves_the_slot_with_the_caller(case: Case) -> None:
    backend = case.backend
    if case.break_submit is None:
        pytest.skip("a real GPU can't be made to refuse")
    slots = [acquired(backend) for _ in range(backend.slots)]
    backend.load(slots[0], [picture(1)])
    case.break_submit()
    with pytest.raises(OutOfMemoryError):
        backend.submit(slots[0])
    assert backend.acquire() is None
    assert backend.collect(0) is None, "nothing is in flight"
    backend.release(slots[0])
    assert backend.acquire() is slots[0]
    assert backend.acquire() is None, "it was given back once"
    backend.load(slots[0], [picture(2)])
    backend.submit(slots[0])
    assert_shows(case, collected(backend), [picture(2)])


def test_a_batch_that_did_not_fit_frees_its_slot_and_no_other(case: Case) -> None:
    backend = case.backend
    if case.starve is None or case.hold is None:
        pytest.skip("a real GPU can't be made to run out of memory")
    case.hold(True)
    first, second = started(backend, picture(1), picture(4)), started(backend, picture(2))
    others = [acquired(backend) for _ in range(backend.slots - 2)]
    assert backend.acquire() is None
    case.starve()
    case.hold(False)
    with pytest.raises(OutOfMemoryError):
        backend.collect(30)
    assert backend.acquire() is first
    assert backend.acquire() is None
    assert collected(backend) is second
    assert_shows(case, second, [picture(2)])
    backend.load(first, [picture(3)])
    backend.submit(first)
    assert_shows(case, collected(backend), [picture(3)])
    assert all(other is not first for other in others)


def test_collect_gives_up_after_its_time(case: Case) -> None:
    backend = case.backend
    assert backend.collect(0.001) is None, "nothing is in flight"
    if case.hold is None:
        pytest.skip("a real GPU can't be held up")
    case.hold(True)
    slot = started(backend, picture(1))
    assert backend.collect(0) is None
    assert backend.collect(0.001) is None
    case.hold(False)
    assert collected(backend) is slot
    assert backend.collect(0) is None


def test_a_released_slot_holds_no_results(backend: Backend) -> None:
    started(backend, picture(1))
    slot = collected(backend)
    backend.release(slot)
    assert not slot.outputs
    assert slot.candidates is None


def test_close_waits_for_what_runs(case: Case) -> None:
    if case.hold is None:
        pytest.skip("a real GPU can't be held up")
    case.hold(True)
    started(case.backend, picture(1))
    closing = threading.Thread(target=case.close)
    closing.start()
    if not hasattr(case.backend, "held"):  # whose batches run when they are asked for
        closing.join(0.05)
        assert closing.is_alive()
    case.hold(False)
    closing.join(30)
    assert not closing.is_alive()
    if device := case.also.get("device"):
        assert device.alive == 0, "everything was freed"


READS = Filter("boxes", "scores", 40.0)


def kept(slot: Slot, threshold: float) -> list[tuple[int, float, int]]:
    """(picture, score, class) of every row whose best score reaches the threshold, whoever has chosen them."""
    if slot.candidates is not None:
        pictures = np.repeat(np.arange(slot.count), slot.candidates.counts)
        found = slot.candidates
        return list(zip(pictures.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True))
    scores = slot.outputs["scores"]
    return [
        (index, float(row.max()), int(row.argmax()))
        for index, rows in enumerate(scores)
        for row in rows
        if row.max() >= threshold
    ]


def test_preparing_again_changes_the_threshold_of_the_next_batch(case: Case) -> None:
    backend = case.backend
    images = [picture(seed) for seed in range(3)]
    backend.prepare(READS)
    started(backend, *images)
    first = collected(backend)
    many = kept(first, 40.0)
    assert all(score >= 40 for _, score, _ in many)
    backend.release(first)
    running = started(backend, *images) if case.hold is None else None
    backend.prepare(Filter("boxes", "scores", 90.0))
    if running is not None:
        backend.release(collected(backend))
    started(backend, *images)
    few = kept(collected(backend), 90.0)
    assert few == [item for item in many if item[1] >= 90.0]
    assert 0 < len(few) < len(many)


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("onnxruntime", {RawBackendModule}),
        ("tensorrt", {StagedBackendModule, SweepingBackendModule}),
        ("tests.plain_backend", set()),
    ],
)
def test_a_module_shows_what_it_can(name: str, abilities: set[type]) -> None:
    module = plugins.load("backends", name)
    assert isinstance(module, BackendModule)
    assert abilities == {
        p for p in (StagedBackendModule, SweepingBackendModule, RawBackendModule) if isinstance(module, p)
    }


def test_a_backend_that_can_only_serve_is_not_measured_alone(echo: Model) -> None:
    settings = [
        ("backend", {"name": "tests.plain_backend"}),
        ("model.path", str(echo.path)),
        ("sources.d.uri", "demo:"),
    ]
    echo.path.with_suffix(".yaml").write_text(yaml.safe_dump(msgspec.to_builtins(echo.card)))
    with pytest.raises(UnavailableError, match=r"'tests.plain_backend' can't run without the pipeline"):
        raw_run(load_config(None, settings), 1)
