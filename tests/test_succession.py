"""Networks that come, fail and go while frames flow: every frame once, every slot back, every offer answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.config.settings import BatchingConfig
from edgeinfer.errors import EdgeinferError, FatalError, OutOfMemoryError, StickyError
from edgeinfer.flow import batching, succession
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.batching import Batching
from edgeinfer.flow.delivery import Delivery
from edgeinfer.flow.inference import GLANCE_S, LONGEST_GLANCE_S, Inference
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.flow.network import Network
from edgeinfer.flow.succession import Verdict
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.messages import ModelInfo, Reason
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.types import (
    Candidates,
    Capture,
    Detections,
    Frame,
    Image,
    Letterbox,
    Outputs,
    Result,
    TensorSpec,
    Timing,
)

Call = Literal["acquire", "prepare", "load", "submit", "collect", "decode", "close"]
Faults = dict[tuple[Call, int], EdgeinferError]
"""Which call of its kind, counted from 0, raises what."""
SOURCES = ("a", "b")
TRIAL = 4
SHIPPED = (succession.TRIAL_FRAMES, succession.TRIAL_S)
TELL_PERIOD_S = 10.0


class Stub:
    """A backend whose outputs are the numbers that its pictures show, and that fails where it is told to."""

    max_batch, lane_depth = 3, 1000
    detail = ""
    output_specs: Sequence[TensorSpec] = ()

    def __init__(self, name: str = "stub", faults: Faults | None = None, slots: int = 2) -> None:
        self.name, self.slots = name, slots
        self.versions: dict[str, str] = {}
        self.faults = faults or {}
        self.calls: dict[str, int] = {}
        self.free = [Slot() for _ in range(slots)]
        self.lent: list[Slot] = []
        self.loaded: dict[int, list[int]] = {}
        self.flying: deque[Slot] = deque()
        self.closed = self.blamed = 0
        self.engine_key = name
        self.infer_ms, self.waits = 7.0, list[float]()

    def fault(self, call: Call) -> None:
        assert not self.closed or call == "close", "used after its end"
        number = self.calls.get(call, 0)
        self.calls[call] = number + 1
        if (call, number) in self.faults:
            raise self.faults[call, number]

    def prepare(self, wanted: Filter | None) -> None:
        self.fault("prepare")

    def acquire(self) -> Slot | None:
        self.fault("acquire")
        if not self.free:
            return None
        self.lent.append(self.free.pop())
        return self.lent[-1]

    def load(self, slot: Slot, images: Sequence[Image]) -> Sequence[Letterbox]:
        assert slot in self.lent
        assert 0 < len(images) <= self.max_batch
        self.fault("load")
        self.loaded[id(slot)] = [int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in images]
        return [Letterbox(4, 4, 1, 1, 0, 0)] * len(images)

    def submit(self, slot: Slot) -> None:
        assert slot in self.lent
        self.fault("submit")
        self.lent = [lent for lent in self.lent if lent is not slot]
        self.flying.append(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        self.waits.append(timeout_s)
        if not self.flying:
            return None
        slot = self.flying[0]
        try:
            self.fault("collect")
        except OutOfMemoryError:
            self.free.append(self.flying.popleft())
            raise
        self.lent.append(self.flying.popleft())
        slot.outputs = {"numbers": np.array(self.loaded[id(slot)])}
        slot.infer_ms = self.infer_ms
        return slot

    def release(self, slot: Slot) -> None:
        assert any(lent is slot for lent in self.lent), "given back twice, or never lent"
        assert not self.closed, "used after its end"
        self.lent = [lent for lent in self.lent if lent is not slot]
        self.free.append(slot)

    def blame(self) -> None:
        self.blamed += 1

    def close(self) -> None:
        self.closed += 1
        self.fault("close")


class Reader:
    """A decoder that finds one object in each picture, whose class is the number that it shows."""

    outputs: tuple[str, ...] = ("numbers",)
    filter: Filter | None = None

    def __init__(self, backend: Stub) -> None:
        self._backend = backend

    def check(self, specs: Sequence[TensorSpec], labels: int) -> None:
        pass

    def decode(self, outputs: Outputs | Candidates, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        self._backend.fault("decode")
        assert not isinstance(outputs, Candidates)
        box, score = np.zeros((1, 4), np.float32), np.ones(1, np.float32)
        return [Detections(box, score, np.array([number], np.int32)) for number in outputs["numbers"]]


class Receiver:
    """Stands in for the publisher."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.full = False

    def is_alive(self) -> bool:
        return True

    def put(self, result: Result) -> None:
        self.results.append(result)


def info(name: str) -> ModelInfo:
    return ModelInfo(id=name, name=name, sha256="0", task="detection", input_size=(4, 4), labels=[])


@dataclass
class Scene:
    """An inference thread that the test itself is: it takes its steps."""

    first: Stub = field(default_factory=Stub)

    def __post_init__(self) -> None:
        self.receiver, self.bulletin, self.mailbox = Receiver(), Bulletin(), Mailbox(1000)
        self.ledgers = {name: Ledger(time.monotonic_ns) for name in SOURCES}
        self.stubs = [self.first]
        self.verdicts: list[Verdict] = []
        batches = Batching(self.mailbox, self.bulletin, BatchingConfig(mode="latency"))
        delivery = Delivery(self.ledgers, self.receiver)  # type: ignore[arg-type]
        self.proven = Network(info("m0"), self.first, Reader(self.first))
        self.inference = Inference(self.proven, batches, delivery)
        self.networks = self.inference.networks

    def frame(self, source: str = "a", live: bool = False) -> int:
        """A picture that shows its own frame_id."""
        number = self.ledgers[source].capture()
        image = np.zeros((4, 4, 3), np.uint8)
        image[0, 0, :2] = divmod(number, 256)
        now = time.monotonic_ns()
        assert self.mailbox.put_wait(Frame(source, number, Capture(image, now, now), live), 0)
        return number

    def frames(self, count: int) -> None:
        for _ in range(count):
            self.frame()

    def offer(self, stub: Stub | None = None, decoder: Reader | None = None) -> Verdict:
        """A network with a backend of its own, or with the one at work and another decoder."""
        if stub is not None:
            self.stubs.append(stub)
        backend = stub or self.networks.network.backend
        assert isinstance(backend, Stub)
        name = f"m{len(self.verdicts) + 1}"
        self.verdicts.append(self.networks.offer(Network(info(name), backend, decoder or Reader(backend))))
        return self.verdicts[-1]

    @property
    def something_to_do(self) -> bool:
        return bool(self.networks.busy or len(self.mailbox) or self.networks.waiting)

    def steps(self, most: int = 1000) -> None:
        for _ in range(most):
            if not self.something_to_do:
                return
            self.inference.step()

    def end(self, drain: bool = True) -> None:
        (self.inference.drain if drain else self.inference.abort)()
        self.inference.run()

    def check(self) -> None:
        """What must be true at the end, whatever has happened."""
        for name, ledger in self.ledgers.items():
            books = ledger.snapshot()
            assert books.captured == books.inferred + sum(books.dropped.values())
            assert books.in_flight == 0
            results = [result for result in self.receiver.results if result.frame.source == name]
            ids = [result.frame.frame_id for result in results]
            assert ids == sorted(set(ids)), "each once, and in order"
            assert [result.seq for result in results] == list(range(len(results)))
            assert books.inferred == len(results)
        for result in self.receiver.results:
            assert result.detections.class_ids.tolist() == [result.frame.frame_id], "somebody else's result"
        for stub in self.stubs:
            assert not stub.lent, "a slot was not given back"
            assert len(stub.free) + len(stub.flying) == stub.slots
            assert stub.closed <= 1
        assert all(verdict.done() for verdict in self.verdicts)


@pytest.fixture(autouse=True)
def no_time_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "TRIAL_FRAMES", TRIAL)
    monkeypatch.setattr(batching, "IDLE_S", 0.0005)


def out_of_memory() -> OutOfMemoryError:
    return OutOfMemoryError("no memory")


def dropped(scene: Scene) -> dict[str, int]:
    return scene.ledgers["a"].snapshot().dropped


# --- whatever happens, in any order ---

ERRORS = st.sampled_from([out_of_memory, lambda: FatalError("broken"), lambda: StickyError("lost")])
CALLS = st.tuples(st.sampled_from(["acquire", "prepare", "load", "submit", "collect", "decode"]), st.integers(0, 6))
FAULTS = st.dictionaries(CALLS, ERRORS, max_size=2)
COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.sampled_from(SOURCES)),
        st.tuples(st.just("steps"), st.integers(1, 8)),
        st.tuples(st.just("offer"), FAULTS),
        st.tuples(st.just("decoder"), st.just(None)),
    ),
    max_size=60,
)


def stub_of(name: str, faults: dict[Any, Any]) -> Stub:
    return Stub(name, {call: make() for call, make in faults.items()})


def follow(scene: Scene, what: str, value: Any) -> None:
    if what == "frame":
        scene.frame(value)
    elif what == "steps":
        scene.steps(value)
    elif what == "offer":
        scene.offer(stub_of(f"s{len(scene.stubs)}", value))
    else:
        scene.offer()


@pytest.mark.slow
@given(commands=COMMANDS, first=FAULTS, drain=st.booleans())
@settings(deadline=None, max_examples=300)
def test_every_frame_once_every_slot_back_every_offer_answered(
    commands: list[tuple[str, Any]], first: dict[Any, Any], drain: bool
) -> None:
    scene = Scene(stub_of("first", first))
    error: EdgeinferError | None = None
    try:
        for what, value in commands:
            follow(scene, what, value)
        if drain:
            scene.steps()
    except EdgeinferError as raised:  # as in the thread: it ends there
        error = raised
        scene.inference.delivery.give_up([*scene.networks.surrender(), *scene.inference.batching.close()], "shutdown")
        scene.networks.end(close=False)
    else:
        scene.end(drain)
    scene.check()
    if error is None and scene.inference.error is None:
        assert all(stub.closed == 1 for stub in scene.stubs)
        if drain:
            assert set(dropped(scene)) <= {"memory"}, "nothing is lost but what there was no room for"


# --- one by one ---


def test_a_network_takes_over_between_two_frames() -> None:
    scene = Scene()
    scene.frames(2)
    scene.inference.step()
    second = Stub("second")
    verdict = scene.offer(second)
    scene.frames(TRIAL)
    scene.steps()
    assert verdict.result(0) is True
    assert [result.model.id for result in scene.receiver.results] == ["m0"] * 2 + ["m1"] * TRIAL
    assert [result.backend for result in scene.receiver.results] == ["stub"] * 2 + ["second"] * TRIAL
    assert (scene.first.closed, second.closed) == (1, 0)
    scene.end()
    scene.check()


def test_a_trial_takes_its_number_of_results_and_no_less() -> None:
    scene = Scene()
    verdict = scene.offer(Stub("second"))
    scene.frames(TRIAL - 1)
    scene.steps()
    assert not verdict.done()
    assert not scene.first.closed, "it may be needed again"
    scene.frames(1)
    scene.steps()
    assert verdict.result(0) is True


def test_a_trial_is_as_long_as_the_documentation_says() -> None:
    """docs/architecture.md: ten frames, or thirty seconds since the first."""
    assert SHIPPED == (10, 30.0)


def test_a_failed_backend_that_can_not_even_be_closed_is_done_without() -> None:
    scene = Scene()
    bad = Stub("bad", {("submit", 0): FatalError("broken"), ("close", 0): FatalError("still broken")})
    verdict = scene.offer(bad)
    scene.frames(2)
    scene.steps()
    assert str(verdict.exception(0)) == "broken"
    assert len(scene.receiver.results) == 2


@pytest.mark.parametrize("error", [FatalError("leaks"), StickyError("lost")])
def test_a_backend_that_had_its_day_and_can_not_be_closed_is_an_error(error: EdgeinferError) -> None:
    """Nobody knows what it still holds of the GPU."""
    scene = Scene(Stub("old", {("close", 0): error}))
    verdict = scene.offer(Stub("new"))
    scene.frames(TRIAL)
    with pytest.raises(type(error)):
        scene.steps()
    assert verdict.result(0) is True


def test_a_lost_gpu_is_noticed_while_a_failed_backend_is_closed() -> None:
    scene = Scene()
    scene.offer(Stub("bad", {("submit", 0): FatalError("broken"), ("close", 0): StickyError("lost")}))
    scene.frames(1)
    with pytest.raises(StickyError):
        scene.steps()


def test_a_slow_camera_ends_a_trial_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    verdict = scene.offer(Stub("second"))
    scene.frames(1)
    scene.steps()
    assert not verdict.done()
    monkeypatch.setattr(succession, "TRIAL_S", 0.0)
    scene.frames(1)
    scene.steps()
    assert verdict.result(0) is True


@pytest.mark.parametrize("error", [out_of_memory(), FatalError("broken"), ValueError("a bug")])
@pytest.mark.parametrize("call", ["load", "submit", "collect", "decode"])
@pytest.mark.parametrize("number", [0, 1])
def test_what_fails_on_trial_is_run_again_on_the_one_before(call: Call, number: int, error: Any) -> None:
    scene = Scene()
    scene.frames(5)
    scene.inference.step()  # these are out in the first
    bad = Stub("bad", {(call, number): error})
    verdict = scene.offer(bad)
    scene.frames(TRIAL)
    scene.steps()
    assert verdict.exception(0) is error
    assert scene.networks.network is scene.proven
    assert bad.blamed == (call != "decode"), "an engine is not at fault for its decoder"
    assert (bad.closed, scene.first.closed) == (1, 0)
    scene.end()
    assert scene.inference.error is None
    assert [result.frame.frame_id for result in scene.receiver.results] == list(range(5 + TRIAL))
    assert dropped(scene) == {}
    scene.check()


def test_frames_that_are_run_again_come_before_those_that_wait() -> None:
    scene = Scene()
    bad = Stub("bad", {("submit", 1): FatalError("broken")})
    scene.offer(bad)
    scene.frames(12)
    scene.steps()
    assert [result.frame.frame_id for result in scene.receiver.results] == list(range(12))


def test_every_slot_is_filled_as_soon_as_there_is_a_frame_however_long_batches_take() -> None:
    """Which of a backend's streams is free next is the backend's secret: one that waits for work loses its time."""
    scene = Scene(Stub(slots=3))
    scene.first.infer_ms = 500.0
    scene.frame(live=True)
    scene.steps()
    for number in range(3):
        scene.frame(SOURCES[number % 2], live=True)
        scene.inference.step()
    assert len(scene.networks.flights) == 3
    scene.end()
    scene.check()


@pytest.mark.parametrize("call", ["load", "submit", "collect"])
def test_without_memory_frames_are_given_up_and_slots_are_not(call: Call) -> None:
    """For ever: with two slots, a slot lost each time would be the end after two."""
    scene = Scene(Stub("poor", {(call, number): out_of_memory() for number in range(10)}))
    scene.frames(40)
    scene.steps()
    books = scene.ledgers["a"].snapshot()
    assert books.dropped["memory"] > 0
    assert books.inferred > 0
    assert books.inferred + books.dropped["memory"] == 40
    assert len(scene.first.free) == scene.first.slots
    scene.end()
    scene.check()


def test_a_lack_of_memory_makes_batches_smaller_and_is_told_while_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [1000.0]
    board, box = Bulletin(), Mailbox(10)
    batches = Batching(box, board, BatchingConfig(), clock=lambda: now[0])
    backend = Stub()
    backend.max_batch = 8
    assert batches.limit(backend) == 8
    batches.lost(8, out_of_memory())
    assert batches.limit(backend) == 4
    told = "no memory; frames are given up, and batches of at most 4 are tried"
    assert board.take_flashes() == [Reason("out-of-memory", told)]
    assert caplog.messages == [told]
    for _ in range(5):
        batches.lost(1, out_of_memory())
    assert batches.limit(backend) == 1, "never none"
    assert board.take_flashes() == []
    assert board.shortage is None
    now[0] += TELL_PERIOD_S - 0.1
    batches.lost(1, out_of_memory())
    assert board.shortage is None
    now[0] += 0.1
    batches.lost(1, out_of_memory())
    assert board.shortage is not None
    assert board.shortage.code == "out-of-memory"
    assert board.headline == board.shortage
    assert [reason.code for reason in board.take_flashes()] == ["out-of-memory"]
    batches.fits()
    assert board.shortage is None
    batches.lost(1, out_of_memory())
    board.shortage = Reason("out-of-memory", "x")
    batches.serve(backend)
    assert batches.limit(backend) == 8, "another backend has other needs"
    assert board.shortage is None
    assert box._depth == backend.lane_depth


def test_a_batch_that_comes_through_ends_the_shortage() -> None:
    scene = Scene()
    scene.inference.batching.lost(2, out_of_memory())
    scene.bulletin.shortage = Reason("out-of-memory", "x")
    scene.frames(1)
    scene.steps()
    assert scene.bulletin.shortage is None


class Ticking:
    """A clock that goes on by so many milliseconds whenever it is looked at."""

    def __init__(self, step_ms: int) -> None:
        self.now_ns, self._step_ns = 10_000_000_000, step_ms * 1_000_000

    def monotonic_ns(self) -> int:
        self.now_ns += self._step_ns
        return self.now_ns


def test_where_a_frames_time_went(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    number = scene.ledgers["a"].capture()
    taken = Capture(np.zeros((4, 4, 3), np.uint8), 0, 9_950_000_000)
    scene.mailbox.put_wait(Frame("a", number, taken, live=False, t_received_mono_ns=9_980_000_000), 0)
    monkeypatch.setattr("edgeinfer.flow.slots.time", Ticking(2))
    monkeypatch.setattr("edgeinfer.flow.inference.time", Ticking(3))
    scene.steps()
    (result,) = scene.receiver.results
    assert result.timing == Timing(queue=52.0, preprocess=2.0, infer=7.0, decode=3.0, receive=30.0, wait=0.0)
    assert (result.seq, result.dropped, result.backend, result.model.id) == (0, 0, "stub", "m0")


def test_only_with_nothing_in_flight_is_a_frame_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []
    box = Mailbox(10)
    box.take = lambda limit, timeout_s, company_s=0.0: asked.append((limit, timeout_s)) or []  # type: ignore[func-returns-value,method-assign]
    monkeypatch.setattr(batching, "IDLE_S", 0.5)
    batches = Batching(box, Bulletin(), BatchingConfig())
    batches.take(Stub(), 0, draining=False)
    batches.take(Stub(), 1, draining=False)
    assert asked == [(3, 0.5), (3, 0.0)]


def test_slots_that_a_backend_has_lost_are_an_error_and_no_silence() -> None:
    scene = Scene()
    scene.first.free.clear()
    scene.frames(1)
    with pytest.raises(FatalError, match="no slot is free and no batch is in flight"):
        scene.inference.step()


@pytest.mark.parametrize("trouble", ["acquire", "slots"])
def test_a_network_on_trial_without_slots_is_rolled_back(trouble: str) -> None:
    scene = Scene()
    bad = Stub("bad", {("acquire", 0): FatalError("no context")} if trouble == "acquire" else {})
    if trouble == "slots":
        bad.free.clear()
    verdict = scene.offer(bad)
    scene.frames(2)
    scene.steps()
    assert isinstance(verdict.exception(0), FatalError)
    assert len(scene.receiver.results) == 2


def test_who_is_offered_on_a_backend_that_has_just_failed_has_failed_too() -> None:
    scene = Scene()
    bad = Stub("bad", {("submit", 0): FatalError("broken")})
    scene.offer(bad)
    scene.frames(1)
    scene.steps()
    late = scene.networks.offer(Network(info("late"), bad, Reader(bad)))
    assert str(late.exception(0)) == "broken"
    scene.frames(1)
    scene.end()
    assert scene.inference.error is None
    assert bad.closed == 1
    scene.check()


def test_a_result_of_the_one_before_proves_nothing_of_the_new_one() -> None:
    scene = Scene()
    scene.frames(3)
    scene.inference._fill(scene.proven)
    scene.offer(Stub("new"))
    scene.inference.step()
    assert len(scene.receiver.results) == 3
    assert scene.inference.heart.silent_s() < -50, "the new one's first batch may still take its time"


def test_a_lack_of_memory_of_the_one_before_says_nothing_of_the_new_one() -> None:
    scene = Scene(Stub("old", {("collect", 0): out_of_memory()}))
    scene.frames(3)
    scene.inference._fill(scene.proven)
    new = Stub("new")
    scene.offer(new)
    scene.inference.step()
    assert dropped(scene) == {"memory": 3}
    assert scene.inference.batching.limit(new) == new.max_batch


def test_the_heart_beats_for_results_and_not_for_batches_that_never_come() -> None:
    scene = Scene()
    scene.frames(1)
    scene.steps()
    heart = scene.inference.heart
    scene.frames(1)
    scene.first.collect = lambda timeout_s: None  # type: ignore[method-assign]
    scene.inference.step()
    heart.forgive(-100)
    for _ in range(5):
        scene.inference.step()
        assert heart.silent_s() >= 100


def test_the_first_result_of_a_backend_may_take_its_time() -> None:
    scene = Scene()
    scene.inference._beat()
    assert -60 <= scene.inference.heart.silent_s() < -50, "a minute, and no more"
    scene.frames(1)
    scene.steps()
    assert scene.inference.heart.silent_s() >= -1
    scene.offer(Stub("second"))
    scene.inference.step()
    scene.inference._beat()
    assert scene.inference.heart.silent_s() < -50, "this one has not shown anything yet"


@pytest.mark.parametrize("error", [FatalError("broken"), StickyError("lost"), ValueError("a bug")])
def test_a_proven_networks_error_ends_the_thread_with_the_books_balanced(error: Exception) -> None:
    scene = Scene(Stub("first", {("collect", 1): error}))  # type: ignore[dict-item]
    scene.frames(9)
    waiting = scene.offer(Stub("late"))
    scene.networks._offers.clear()
    scene.verdicts.remove(waiting)
    scene.end()
    assert scene.inference.error is error
    assert scene.first.closed == 0, "a driver in that state may never return"
    assert dropped(scene)["shutdown"] == 6
    assert scene.inference.heart.silent_s() == 0
    scene.check()


def test_a_lost_gpu_is_not_rolled_back() -> None:
    scene = Scene()
    verdict = scene.offer(Stub("bad", {("submit", 0): StickyError("lost")}))
    scene.frames(1)
    with pytest.raises(StickyError):
        scene.steps()
    scene.networks.end(close=False)
    assert verdict.result(0) is False


def test_the_networks_error_is_not_its_successors() -> None:
    """A batch of the old one that fails while the new one is on trial ends the run: there is nothing to go back to."""
    scene = Scene(Stub("old", {("collect", 0): FatalError("old breaks")}))
    scene.frames(1)
    scene.inference._fill(scene.proven)
    scene.offer(Stub("new"))
    with pytest.raises(FatalError, match="old breaks"):
        scene.steps()


class Failing(Reader):
    def decode(self, outputs: Outputs | Candidates, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        raise ValueError("cannot read this")


def test_a_decoder_that_fails_gives_way_and_its_backend_goes_on() -> None:
    scene = Scene()
    scene.frames(4)
    scene.inference.step()
    verdict = scene.offer(decoder=Failing(scene.first))
    scene.frames(TRIAL)
    scene.steps()
    assert isinstance(verdict.exception(0), ValueError)
    assert scene.networks.network is scene.proven
    assert {result.model.id for result in scene.receiver.results} == {"m0"}
    assert len(scene.receiver.results) == 4 + TRIAL
    assert (scene.first.closed, scene.first.blamed) == (0, 0)
    scene.end()
    scene.check()


@pytest.mark.parametrize("call", ["load", "submit", "collect"])
def test_a_shared_backend_without_memory_is_not_its_new_decoders_fault(call: Call) -> None:
    scene = Scene()
    verdict = scene.offer()
    scene.inference.step()
    scene.first.faults = {(call, scene.first.calls.get(call, 0)): out_of_memory()}
    scene.frames(3 + TRIAL)
    scene.steps()
    assert verdict.result(0) is True
    assert dropped(scene) == {"memory": 3}
    scene.end()
    scene.check()


def test_too_few_results_are_the_decoders_fault() -> None:
    class Short(Reader):
        def decode(self, outputs: Outputs | Candidates, letterboxes: Sequence[Letterbox]) -> list[Detections]:
            return super().decode(outputs, letterboxes)[1:]

    scene = Scene()
    verdict = scene.offer(decoder=Short(scene.first))
    scene.frames(3)
    scene.steps()
    assert "gave 2 results for 3 frames" in str(verdict.exception(0))
    assert len(scene.receiver.results) == 3


def test_an_offer_during_a_trial_takes_its_place_once_nothing_is_in_flight() -> None:
    scene = Scene()
    second, third = Stub("second"), Stub("third")
    passed_over = scene.offer(second)
    scene.frames(1)
    scene.inference.step()
    assert scene.networks.flights
    verdict = scene.offer(third)
    scene.frames(TRIAL)
    scene.inference.step()
    assert scene.networks.network.backend is second, "its batch is still out"
    scene.steps()
    assert passed_over.result(0) is False
    assert verdict.result(0) is True
    assert (scene.first.closed, second.closed, third.closed) == (1, 1, 0)
    assert [result.backend for result in scene.receiver.results] == ["second"] + ["third"] * TRIAL
    scene.end()
    scene.check()


def test_what_took_a_trials_place_falls_back_on_the_last_that_was_proven() -> None:
    scene = Scene()
    second = Stub("second")
    scene.offer(second)
    scene.inference.step()
    verdict = scene.offer(Stub("third", {("load", 0): FatalError("broken")}))
    scene.frames(2)
    scene.steps()
    assert verdict.exception(0) is not None
    assert scene.networks.network is scene.proven
    assert second.closed == 1


def test_who_waits_with_a_backend_that_fails_has_failed_too() -> None:
    scene = Scene()
    bad = Stub("bad", {("collect", 0): FatalError("broken")})
    scene.offer(bad)
    scene.frames(1)
    scene.inference.step()
    shared = scene.offer(decoder=Reader(bad))
    assert scene.networks.network.backend is bad
    scene.steps()
    assert isinstance(shared.exception(0), FatalError)
    assert bad.closed == 1
    scene.end()
    scene.check()


def test_a_decoder_offered_for_a_backend_on_trial_keeps_that_backend_open() -> None:
    scene = Scene()
    second = Stub("second")
    scene.offer(second)
    scene.frames(1)
    scene.inference.step()
    shared = scene.offer(decoder=Reader(second))
    scene.frames(TRIAL)
    scene.steps()
    assert shared.result(0) is True
    assert (scene.first.closed, second.closed) == (1, 0)
    scene.end()
    scene.check()


def test_a_network_that_can_not_get_ready_is_rolled_back_before_its_first_frame() -> None:
    scene = Scene()
    verdict = scene.offer(Stub("bad", {("prepare", 0): FatalError("no graphs")}))
    scene.frames(1)
    scene.steps()
    assert isinstance(verdict.exception(0), FatalError)
    assert len(scene.receiver.results) == 1


def test_an_offer_after_the_end_is_answered_and_freed() -> None:
    scene = Scene()
    scene.end()
    late = Stub("late")
    assert scene.offer(late).result(0) is False
    assert late.closed == 1
    assert scene.first.closed == 1


@pytest.mark.parametrize("drain", [True, False])
def test_the_end_answers_offers_that_wait_and_frees_them(drain: bool) -> None:
    scene = Scene()
    trial, waiting = scene.offer(Stub("second")), None
    scene.frames(7)
    scene.inference.step()
    waiting = scene.offer(Stub("third"))
    scene.end(drain)
    assert (trial.result(0), waiting.result(0)) == (False, drain)
    assert [stub.closed for stub in scene.stubs] == [1, 1, 1]
    assert len(scene.receiver.results) == (7 if drain else 0)
    scene.check()


def test_results_beyond_the_limit_are_dropped() -> None:
    scene = Scene()
    scene.inference.delivery.limit = 5
    scene.frames(8)
    scene.end()
    assert len(scene.receiver.results) == 5
    assert dropped(scene) == {"shutdown": 3}


@pytest.mark.parametrize("live", [True, False])
def test_a_full_publisher_costs_a_camera_a_result_and_a_file_time(live: bool) -> None:
    scene = Scene()
    number = scene.ledgers["a"].capture()
    image = np.zeros((4, 4, 3), np.uint8)
    now = time.monotonic_ns()
    scene.mailbox.put_latest(Frame("a", number, Capture(image, now, now), live))
    looks: Iterator[bool] = iter([True, True, True, False] if not live else [True, True])
    type(scene.receiver).full = property(lambda _: next(looks, False))  # type: ignore[assignment]
    try:
        scene.steps()
    finally:
        type(scene.receiver).full = False
    assert len(scene.receiver.results) == (0 if live else 1)
    assert dropped(scene) == ({"publish": 1} if live else {})


def test_an_abort_gives_up_a_file_that_waits_for_the_publisher() -> None:
    scene = Scene()
    scene.frames(1)
    scene.receiver.full = True
    scene.inference.abort()
    scene.steps()
    assert dropped(scene) == {"publish": 1}


@pytest.mark.parametrize(("mode", "waits"), [("latency", [0, 0]), ("balanced", [0, 1]), ("throughput", [1, 1])])
def test_when_frames_wait_for_company(mode: Any, waits: list[int]) -> None:
    """With nothing in flight, and with every slot but one; never while the run drains."""
    asked: list[float] = []
    box = Mailbox(10)
    box.take = lambda limit, timeout_s, company_s=0.0: asked.append(company_s) or []  # type: ignore[method-assign,func-returns-value]
    batches = Batching(box, Bulletin(), BatchingConfig(mode=mode, wait_ms=5.0))
    for in_flight in (0, 1):
        batches.take(Stub(), in_flight, draining=False)
    assert asked == [wait * 0.005 for wait in waits]
    batches.take(Stub(), 1, draining=True)
    assert asked[-1] == 0.0


@pytest.mark.parametrize(("infer_ms", "glance_s"), [(0.5, GLANCE_S), (20.0, 0.001), (500.0, LONGEST_GLANCE_S)])
def test_a_long_batch_is_looked_after_less_often_than_a_short_one(infer_ms: float, glance_s: float) -> None:
    """Every look costs processor time, which the network needs where it runs on the CPU."""
    scene = Scene()
    scene.first.infer_ms = infer_ms
    for expected in (GLANCE_S, glance_s):
        scene.frame()
        scene.steps()
        assert scene.first.waits[-1] == pytest.approx(expected)
