"""The model's life step by step: what is loaded, what takes over, what is told, and what is closed."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config, load_config
from edgeinfer.daemon import serving as module
from edgeinfer.daemon.background import Background, Workshop
from edgeinfer.daemon.rehearsal import REHEARSAL_S, rehearse
from edgeinfer.daemon.retrying import Retries
from edgeinfer.daemon.selection import Choice, Opened
from edgeinfer.daemon.serving import Served, Serving, failure_of, network
from edgeinfer.engine.errors import BuildCancelledError, BuildError, BuildKilledError, ToleranceError
from edgeinfer.errors import (
    ConfigError,
    EdgeinferError,
    FatalError,
    OutOfMemoryError,
    StickyError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.flow.network import Network
from edgeinfer.flow.succession import Verdict
from edgeinfer.interfaces import Slot
from edgeinfer.messages import Reason
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.types import TensorSpec
from tests.test_succession import Reader, Stub

WAIT_S = 30.0


class Picky(Reader):
    """A decoder that fits every backend but those whose name says so."""

    def check(self, specs: Sequence[TensorSpec], labels: int) -> None:
        if self._backend.name == "misfit":
            raise ConfigError("the outputs don't fit")


class Networks:
    """Stands in for the succession: the test gives the verdicts."""

    def __init__(self) -> None:
        self.ended = False
        self.offers: list[tuple[Network, Verdict]] = []

    def offer(self, offered: Network) -> Verdict:
        self.offers.append((offered, Future()))
        return self.offers[-1][1]


class Scene:
    """A serving whose choice of a backend is the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.choice: Choice | EdgeinferError = Choice(Stub("cpu"), None)
        self.begun: list[Network] = []
        self.announced: list[str] = []
        self.networks, self.bulletin, self.workshop = Networks(), Bulletin(), Workshop()
        announce: Callable[[Network], None] = lambda network: self.announced.append(network.backend.name)  # noqa: E731
        self.serving = Serving(self._begin, announce, self.bulletin, self.workshop)  # type: ignore[arg-type]
        self.model, self.config = load_model("nanodet-g"), load_config(None, [])
        self.now_s = 0.0
        self.serving.retries = Retries(lambda: self.now_s)
        monkeypatch.setattr(module, "choose", self._choose)
        monkeypatch.setattr(module, "network", self._network)

    def _begin(self, first: Network) -> Networks:
        self.begun.append(first)
        return self.networks

    def _choose(self, model: Model, config: Config, wanted: Any, cancel: Any) -> Choice:
        if isinstance(self.choice, EdgeinferError):
            raise self.choice
        return self.choice

    def _network(self, model: Model, decoder: Reader, backend: Stub) -> Network:
        decoder._backend = backend
        return network(model, decoder, backend)

    def load(self, choice: Choice | EdgeinferError | None = None) -> None:
        self.choice = choice or self.choice
        self.serving.load(self.model, Picky(Stub()), self.config)
        self.settle()

    def settle(self) -> None:
        """Polls until nothing is at work in the background."""
        deadline, idle = time.monotonic() + WAIT_S, 0
        while idle < 4:  # what one poll finds done may begin something else
            idle = 0 if self.workshop.busy else idle + 1
            self.serving.poll()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def swap(self, stub: Stub, new_model: bool = True) -> Verdict:
        served = Served(self.config, self.model, self._network(self.model, Picky(stub), stub))
        return self.serving.swap(served, new_model)

    @property
    def news(self) -> tuple[str, str]:
        told = self.bulletin.news
        return ("", "") if told is None else (told.code, told.text)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def later(outcome: Stub | EdgeinferError) -> Any:
    def work(tell: Any, cancel: threading.Event) -> Stub:
        if isinstance(outcome, EdgeinferError):
            raise outcome
        return outcome

    return work


def test_what_was_loaded_serves_once_it_may(scene: Scene) -> None:
    scene.serving.load(scene.model, Picky(Stub()), scene.config)
    deadline = time.monotonic() + WAIT_S
    while scene.workshop.busy:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    scene.serving.poll(may_start=False)
    assert (scene.serving.now, scene.serving.backend, scene.serving.backend_name) == (None, None, "")
    scene.serving.poll(may_start=True)
    assert scene.serving.backend_name == "cpu"
    assert [one.backend.name for one in scene.begun] == scene.announced == ["cpu"]
    assert scene.news == ("", "")


def test_a_model_that_can_not_be_loaded_ends_the_run(scene: Scene) -> None:
    with pytest.raises(TemporaryError, match="no room"):
        scene.load(TemporaryError("no room"))


def test_an_engine_takes_over_and_is_proven(scene: Scene) -> None:
    scene.load(Choice(Stub("cpu"), later(Stub("trt"))))
    assert scene.serving.backend_name == "trt"
    assert scene.announced == ["cpu", "trt"]
    assert scene.news == ("engine-ready", "running on trt")
    ((offered, verdict),) = scene.networks.offers
    assert offered.backend.name == "trt"
    verdict.set_result(True)
    scene.serving.poll()
    assert scene.serving.backend_name == "trt"
    assert scene.announced == ["cpu", "trt"], "it was said before"
    assert scene.news[0] == "engine-ready"


def test_an_engine_that_fails_on_trial_is_told_and_the_one_before_announced(scene: Scene) -> None:
    scene.load(Choice(Stub("cpu"), later(Stub("trt"))))
    scene.networks.offers[0][1].set_exception(FatalError("wrong numbers"))
    scene.serving.poll()
    assert scene.serving.backend_name == "cpu"
    assert scene.announced == ["cpu", "trt", "cpu"]
    assert scene.news == ("engine-failed", "wrong numbers; back on cpu")


def test_an_engine_alone_is_the_first_network(scene: Scene) -> None:
    scene.load(Choice(None, later(Stub("trt"))))
    assert [one.backend.name for one in scene.begun] == ["trt"]
    assert scene.networks.offers == []
    assert scene.news == ("engine-ready", "running on trt")


@pytest.mark.parametrize("failure", [FatalError("no tactic"), "misfit"])
def test_without_its_engine_the_fallback_goes_on(scene: Scene, failure: Any) -> None:
    outcome = Stub("misfit") if failure == "misfit" else failure
    scene.load(Choice(Stub("cpu"), later(outcome)))
    assert scene.serving.backend_name == "cpu"
    assert scene.news[0] == "engine-failed"
    assert scene.news[1].endswith("; staying on cpu")
    assert not isinstance(outcome, Stub) or outcome.closed == 1


def test_without_its_engine_the_fallback_is_loaded(scene: Scene) -> None:
    scene.load(Choice(None, later(FatalError("damaged")), instead=lambda _: Stub("cpu")))
    assert [one.backend.name for one in scene.begun] == ["cpu"]
    assert scene.news == ("engine-failed", "damaged; staying on onnxruntime")


class Attempts:
    """Opens an engine as often as it is asked to, each time with the next outcome; the last one stays."""

    def __init__(self, *outcomes: Stub | EdgeinferError) -> None:
        self.outcomes, self.count = list(outcomes), 0

    def __call__(self, tell: Any, cancel: threading.Event) -> Stub:
        outcome = self.outcomes[min(self.count, len(self.outcomes) - 1)]
        self.count += 1
        if isinstance(outcome, EdgeinferError):
            raise outcome
        return outcome


NO_MEMORY = BuildKilledError("the build was killed", "add swap")


def test_an_engine_that_wants_memory_is_tried_again_after_growing_pauses(scene: Scene) -> None:
    attempts = Attempts(*[NO_MEMORY] * 5, Stub("trt"))
    scene.load(Choice(Stub("cpu"), attempts, instead=lambda _: Stub("wide")))
    for count, minutes in enumerate((1, 5, 15, 60, 60), 1):
        assert scene.news == (
            "engine-failed",
            f"the build was killed; add swap; staying on cpu; next attempt in {minutes} min",
        )
        scene.now_s += minutes * 60 - 1
        scene.settle()
        assert (attempts.count, scene.serving.backend_name) == (count, "cpu")
        scene.now_s += 1
        scene.settle()
        assert attempts.count == count + 1
    assert (scene.serving.backend_name, scene.news) == ("trt", ("engine-ready", "running on trt"))
    scene.networks.offers[0][1].set_result(True)
    scene.now_s += 1e6
    scene.settle()
    assert attempts.count == 6


def test_a_cached_engine_that_wants_memory_is_tried_again_beside_the_fallback(scene: Scene) -> None:
    attempts = Attempts(OutOfMemoryError("no GPU memory"), Stub("trt"))
    scene.load(Choice(None, attempts, instead=lambda _: Stub("cpu")))
    assert (scene.serving.backend_name, scene.news[1]) == (
        "cpu",
        "no GPU memory; staying on onnxruntime; next attempt in 1 min",
    )
    scene.now_s = 60.0
    scene.settle()
    assert scene.serving.backend_name == "trt"


def test_an_engine_that_wants_memory_in_its_first_frames_is_tried_again(scene: Scene) -> None:
    attempts = Attempts(Stub("trt"))
    scene.load(Choice(Stub("cpu"), attempts))
    scene.networks.offers[0][1].set_exception(OutOfMemoryError("no GPU memory"))
    scene.settle()
    assert scene.news == ("engine-failed", "no GPU memory; back on cpu; next attempt in 1 min")
    scene.now_s = 60.0
    scene.settle()
    assert (attempts.count, scene.serving.backend_name) == (2, "trt")


@pytest.mark.parametrize(
    "failure",
    [
        BuildError("node 3 is not supported"),
        ToleranceError("too far off"),
        FatalError("broken"),
        BuildCancelledError("the build took longer than 4 h"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_is_hopeless_is_not_tried_again_and_the_fallback_gets_all_cores(
    scene: Scene, failure: EdgeinferError
) -> None:
    attempts, thrifty = Attempts(failure), Stub("thrifty")
    scene.load(Choice(thrifty, attempts, instead=lambda _: Stub("wide")))
    assert scene.news == ("engine-failed", f"{failure.message}; staying on thrifty")
    assert scene.serving.backend_name == "wide"
    scene.now_s = 1e6
    scene.settle()
    assert attempts.count == 1


def test_a_fallback_that_can_not_be_opened_again_serves_on_as_it_is(scene: Scene) -> None:
    def none(cancel: threading.Event) -> Stub:
        raise TemporaryError("no room")

    scene.load(Choice(Stub("cpu"), Attempts(BuildError("no")), instead=none))
    assert (scene.serving.backend_name, scene.news) == ("cpu", ("engine-failed", "no; staying on cpu"))


def test_a_fallback_that_fits_no_more_when_opened_again_is_closed(scene: Scene) -> None:
    misfit = Stub("misfit")
    scene.load(Choice(Stub("cpu"), Attempts(BuildError("no")), instead=lambda _: misfit))
    assert (scene.serving.backend_name, misfit.closed) == ("cpu", 1)


@pytest.mark.parametrize("end", ["another model", "the end of the run"])
def test_nothing_is_tried_again_once_nobody_wants_it(scene: Scene, end: str) -> None:
    attempts = Attempts(NO_MEMORY)
    scene.load(Choice(Stub("cpu"), attempts))
    if end == "another model":
        scene.swap(Stub("new")).set_result(True)
    else:
        scene.serving.cancel()
    scene.now_s = 1e6
    scene.settle()
    assert attempts.count == 1


def test_without_engine_and_fallback_there_is_nothing_to_run(scene: Scene) -> None:
    with pytest.raises(FatalError, match="damaged"):
        scene.load(Choice(None, later(FatalError("damaged"))))


def test_a_gpu_that_is_lost_while_the_engine_is_opened_ends_the_run(scene: Scene) -> None:
    with pytest.raises(StickyError):
        scene.load(Choice(Stub("cpu"), later(StickyError("lost")), instead=lambda _: Stub("x")))


@pytest.mark.parametrize("refused", ["at the choice", "after the build"])
def test_what_stands_in_the_way_of_tensorrt_is_found_out_and_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: str
) -> None:
    asked = []

    def explain(error: EdgeinferError) -> EdgeinferError:
        asked.append(error)
        return UnavailableError("this user may not open /dev/nvmap", "join the group video")

    monkeypatch.setattr(module, "explain", explain)
    error = UnavailableError("no GPU")
    choice = Choice(Stub("cpu"), None, refused=error)
    scene.load(choice if refused == "at the choice" else Choice(Stub("cpu"), later(error)))
    line = "TensorRT is not used: this user may not open /dev/nvmap; join the group video"
    assert asked == [error]
    assert scene.serving.backend_name == "cpu"
    assert scene.bulletin.unused == Reason("tensorrt-unused", line)
    assert [record.getMessage() for record in caplog.records] == [line], "one line, and no other"


def test_where_nothing_stands_in_its_way_nothing_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "explain", lambda error: None)
    scene.load(Choice(Stub("cpu"), None, refused=UnavailableError("no GPU")))
    assert scene.bulletin.unused is None
    assert not caplog.records


def test_what_stood_in_the_way_is_forgotten_when_it_does_not_any_more(scene: Scene) -> None:
    scene.bulletin.unused = Reason("tensorrt-unused", "for now")
    scene.load(Choice(Stub("cpu"), later(Stub("trt"))))
    assert scene.bulletin.unused is None


def test_news_of_the_choice_is_told(scene: Scene) -> None:
    scene.load(Choice(Stub("cpu"), None, news=Reason("engine-failed", "crashes")))
    assert scene.news == ("engine-failed", "crashes")


def test_a_swap_during_a_trial_takes_its_place(scene: Scene) -> None:
    scene.load(Choice(Stub("cpu"), later(Stub("trt"))))
    second = scene.swap(Stub("new"))
    assert scene.serving.backend_name == "new"
    scene.networks.offers[0][1].set_result(False)
    scene.serving.poll()
    assert scene.serving.backend_name == "new"
    assert scene.news[0] == "engine-ready", "to be passed over is no failure"
    second.set_exception(FatalError("broken"))
    scene.serving.poll()
    assert scene.serving.backend_name == "cpu", "the last that was proven"
    assert scene.announced == ["cpu", "trt", "new", "cpu"]


def test_after_the_end_what_served_last_is_what_served(scene: Scene) -> None:
    """It may be about to be blamed for that end."""
    scene.load(Choice(Stub("cpu"), later(Stub("trt"))))
    scene.networks.ended = True
    scene.networks.offers[0][1].set_result(False)
    scene.serving.poll()
    assert scene.serving.backend_name == "trt"


def test_verdicts_count_in_the_order_of_the_offers(scene: Scene) -> None:
    scene.load()
    first, second = scene.swap(Stub("one")), scene.swap(Stub("two"))
    first.set_result(True)
    scene.serving.poll()
    assert scene.serving.backend_name == "two"
    second.set_exception(FatalError("broken"))
    scene.serving.poll()
    assert scene.serving.backend_name == "one"


def test_an_engine_that_is_ready_during_a_trial_waits_for_its_end(scene: Scene) -> None:
    go = threading.Event()

    def slow(tell: Any, cancel: threading.Event) -> Stub:
        go.wait(WAIT_S)
        return Stub("trt")

    scene.choice = Choice(Stub("cpu"), slow)
    scene.serving.load(scene.model, Picky(Stub()), scene.config)
    deadline = time.monotonic() + WAIT_S
    while scene.serving.now is None:
        scene.serving.poll()
        assert time.monotonic() < deadline
    trial = scene.swap(Stub("decoder"), new_model=False)
    go.set()
    scene.settle()
    assert scene.serving.backend_name == "decoder"
    trial.set_result(True)
    scene.serving.poll()
    assert scene.serving.backend_name == "trt"


@pytest.mark.parametrize("new_model", [True, False])
def test_a_new_model_gives_the_old_ones_engine_up(scene: Scene, new_model: bool) -> None:
    go, engine, asked = threading.Event(), Stub("trt"), list[bool]()

    def slow(tell: Any, cancel: threading.Event) -> Stub:
        go.wait(WAIT_S)
        asked.append(cancel.is_set())
        return engine

    scene.choice = Choice(Stub("cpu"), slow)
    scene.serving.load(scene.model, Picky(Stub()), scene.config)
    deadline = time.monotonic() + WAIT_S
    while scene.serving.now is None:
        scene.serving.poll()
        assert time.monotonic() < deadline
    scene.swap(Stub("new"), new_model).set_result(True)
    go.set()
    scene.settle()
    assert asked == [new_model]
    assert engine.closed == new_model
    assert scene.serving.backend_name == ("new" if new_model else "trt")


def test_a_rehearsal_sends_a_picture_all_the_way() -> None:
    stub = Stub()
    rehearse(Network(None, stub, Reader(stub)))  # type: ignore[arg-type]
    assert stub.calls == {"acquire": 1, "load": 1, "submit": 1, "collect": 1, "decode": 1}
    assert len(stub.free) == stub.slots


def test_a_rehearsal_without_a_result_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub("stuck")

    waited: list[float] = []

    def never(timeout_s: float) -> Slot | None:
        waited.append(timeout_s)
        return None

    monkeypatch.setattr(stub, "collect", never)
    with pytest.raises(FatalError, match="stuck: no result within 30 s"):
        rehearse(Network(None, stub, Reader(stub)))  # type: ignore[arg-type]
    assert sum(waited) == pytest.approx(REHEARSAL_S)


def test_a_rehearsal_that_nobody_waits_for_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, cancel = Stub("stuck"), threading.Event()
    cancel.set()
    monkeypatch.setattr(stub, "collect", lambda timeout_s: None)
    with pytest.raises(TemporaryError, match="stuck: given up before it gave a result"):
        rehearse(Network(None, stub, Reader(stub)), cancel)  # type: ignore[arg-type]


def test_why_an_offer_failed() -> None:
    passed, over, known, bug = (Verdict() for _ in range(4))
    passed.set_result(True)
    over.set_result(False)
    known.set_exception(TemporaryError("full"))
    bug.set_exception(ValueError("x"))
    assert failure_of(passed) is failure_of(over) is None
    assert isinstance(failure_of(known), TemporaryError)
    assert str(failure_of(bug)) == "ValueError: x"
    assert isinstance(failure_of(bug), FatalError)


# --- in the background ---


def test_what_came_of_it_is_a_result_or_an_error_of_ours() -> None:
    workshop = Workshop()

    def buggy(cancel: threading.Event) -> int:
        raise ValueError("bug")

    def failing(cancel: threading.Event) -> int:
        raise TemporaryError("full")

    def leaving(cancel: threading.Event) -> int:
        raise SystemExit(3)

    good, bad, bug, gone = (workshop.begin("job", work) for work in (lambda _: 7, failing, buggy, leaving))
    for job in (good, bad, bug, gone):
        job.future.exception(WAIT_S)
        assert job.done
    assert good.outcome() == 7
    assert isinstance(bad.outcome(), TemporaryError)
    assert str(bug.outcome()) == "job: ValueError: bug"
    assert str(gone.outcome()) == "job: SystemExit: 3"
    deadline = time.monotonic() + WAIT_S
    while workshop.busy:
        assert time.monotonic() < deadline
    assert not good.running


@pytest.mark.parametrize("late", [True, False])
def test_what_was_given_up_is_disposed_of_however_late_it_comes(late: bool) -> None:
    go, disposed, asked = threading.Event(), list[int](), list[bool]()

    def work(cancel: threading.Event) -> int:
        go.wait(WAIT_S)
        asked.append(cancel.is_set())
        return 3

    job = Background("job", work)
    if not late:
        go.set()
        job.future.result(WAIT_S)
    job.cancel(disposed.append)
    go.set()
    job.future.result(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while not disposed:
        assert time.monotonic() < deadline
    assert (disposed, asked) == ([3], [late])


def test_work_that_fails_after_it_was_given_up_disposes_of_nothing() -> None:
    go, disposed = threading.Event(), list[int]()

    def work(cancel: threading.Event) -> int:
        cancel.wait(WAIT_S)
        go.set()
        raise TemporaryError("cancelled")

    job = Background("job", work)
    job.cancel(disposed.append)
    assert go.wait(WAIT_S)
    assert isinstance(job.future.exception(WAIT_S), TemporaryError)
    assert disposed == []


class Big:
    """What takes memory."""


@pytest.mark.slow
def test_a_failed_job_holds_on_to_nothing() -> None:
    """What was half made for want of memory would be kept until the next attempt, which then wants it again."""
    alive: list[weakref.ref[Big]] = []

    def load(cancel: threading.Event) -> None:
        big = Big()
        alive.append(weakref.ref(big))
        try:
            raise ValueError(str(big))
        except ValueError:
            raise TemporaryError("no memory") from None

    job = Workshop().begin("load", load)
    with pytest.raises(TemporaryError):
        job.future.result(WAIT_S)
    gc.collect()
    assert alive[0]() is None


UNUSED = Reason("tensorrt-unused", "TensorRT is not used: …")


def test_a_reload_that_brings_tensorrt_forgets_why_it_was_not_used(scene: Scene) -> None:
    scene.load()
    scene.bulletin.unused = UNUSED
    scene.swap(Stub("onnxruntime-cpu"))
    assert scene.bulletin.unused is UNUSED
    scene.swap(Stub("tensorrt-fp16"))
    assert scene.bulletin.unused is None


def test_an_explanation_that_comes_too_late_is_not_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(error: EdgeinferError) -> EdgeinferError:
        go.wait(WAIT_S)
        return error

    monkeypatch.setattr(module, "explain", slow)
    scene.choice = Choice(Stub("onnxruntime-cpu"), None, refused=UnavailableError("no GPU"))
    scene.serving.load(scene.model, Picky(Stub()), scene.config)
    deadline = time.monotonic() + WAIT_S
    while scene.serving.now is None:
        scene.serving.poll()
        assert time.monotonic() < deadline
    scene.swap(Stub("tensorrt-fp16"))
    go.set()
    scene.settle()
    assert scene.bulletin.unused is None


def test_after_a_reload_too_it_is_found_out_why_tensorrt_is_not_used(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "explain", lambda error: error)
    scene.load(Choice(Stub("onnxruntime-cpu"), None))
    scene.serving.go_on(Opened(Stub("onnxruntime-cpu"), refused=UnavailableError("no way to CUDA")))
    scene.settle()
    assert scene.bulletin.unused == Reason("tensorrt-unused", "TensorRT is not used: no way to CUDA")


def test_after_a_reload_too_what_serves_gets_its_cores_back_where_no_engine_will_come(scene: Scene) -> None:
    scene.load(Choice(Stub("onnxruntime-cpu"), None))
    failing = later(FatalError("no tactic"))
    scene.serving.go_on(
        Opened(Stub("onnxruntime-cpu"), failing, OutOfMemoryError("full"), instead=lambda _: Stub("onnxruntime-wide"))
    )
    scene.now_s += 61
    scene.settle()
    assert scene.serving.backend_name == "onnxruntime-wide"


@pytest.mark.parametrize("code", ["reloaded", "engine-ready"])
def test_what_is_amiss_counts_for_more_than_what_went_well(code: str) -> None:
    board = Bulletin()
    board.news, board.unused = Reason(code, "…"), UNUSED
    assert board.headline is UNUSED
    board.unused = None
    assert board.headline is board.news
