"""CUDA's statuses, memory and waits, on a GPU that is simulated."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from edgeinfer.bench.measure import free_gpu_memory
from edgeinfer.cuda import status
from edgeinfer.engine import machine
from edgeinfer.engine.build import worker
from edgeinfer.errors import (
    EdgeinferError,
    FatalError,
    OutOfMemoryError,
    StickyError,
    UnavailableError,
)
from edgeinfer.gpu.cuda import LATE, POLL_S, Cuda, Driver, _Quick, sharpen_timer
from edgeinfer.gpu.device import Device, free_memory, open_device
from edgeinfer.gpu.memory import DeviceBuffer, Pair, PinnedBuffer
from tests.gpu import simulated
from tests.gpu.simulated import Simulation

KINDS = [(1, FatalError), (2, OutOfMemoryError), (100, UnavailableError), (35, UnavailableError), (700, StickyError)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return simulated.install(monkeypatch)


def calls(device: Simulation) -> dict[str, Any]:
    """Everything that asks CUDA for something: the call that it makes, and how it comes about."""
    cuda, stream_of = Cuda(), Device(Cuda())
    event = cuda.event()
    return {
        "cudaMalloc": lambda: cuda("cudaMalloc", 4),
        "cudaEventQuery": lambda: cuda.done(event),
        "cuModuleLoadData": lambda: Driver()("cuModuleLoadData", b"x"),
        "cudaMemcpyAsync": lambda: stream_of.upload("x", np.zeros(2)),
        "cudaStreamSynchronize": stream_of.synchronize,
        "cudaMemGetInfo": free_memory,
        "cuDeviceGetName": stream_of.facts,
    }


@pytest.mark.parametrize(("code", "kind"), KINDS)
def test_every_call_goes_through_one_judge(device: Simulation, code: int, kind: type[EdgeinferError]) -> None:
    for name, call in calls(device).items():
        device.fail[name] = [code]
        with pytest.raises(EdgeinferError, match=f"{name}: CUDA error {code} ") as caught:
            call()
        assert type(caught.value) is kind, name
        call()


def test_the_drivers_own_calls_are_judged_too(device: Simulation) -> None:
    cuda, given = Cuda(), list[tuple[int, ...]]()
    answers = [0, 700, 0, 2]

    def answer(*arguments: int) -> int:
        given.append(arguments)
        return answers.pop(0)

    cuda._quick = _Quick(answer, answer, answer, answer)
    cuda.upload(1, 2, 3, 4)
    with pytest.raises(StickyError, match="cuMemcpyHtoDAsync: CUDA error 700"):
        cuda.upload(1, 2, 3, 4)
    cuda.record(5, 6)
    with pytest.raises(OutOfMemoryError, match="cuEventRecord: CUDA error 2"):
        cuda.record(5, 6)
    assert given == [(1, 2, 3, 4)] * 2 + [(5, 6)] * 2


def test_a_status_is_named_where_cuda_names_it() -> None:
    status.check("cudaFree", 0)
    with pytest.raises(FatalError, match=r"cudaFree: CUDA error 1 \(cudaErrorInvalidValue\); see edgeinfer doctor"):
        status.check("cudaFree", simulated.Status.cudaErrorInvalidValue)


def test_a_status_in_a_text_counts_for_more_than_its_words() -> None:
    lost = status.error_from_text("CUDA failure 700: out of memory, or an illegal address")
    assert type(lost) is StickyError
    assert type(status.error_from_text("CUDA error 2")) is OutOfMemoryError
    assert type(status.error_from_text("CUDA driver error: 100")) is UnavailableError
    assert status.status_in("no CUDA error here") is None


def test_a_call_that_may_fail_leaves_no_error_behind(device: Simulation) -> None:
    cuda = Cuda()
    device.fail["cudaHostRegister"] = [1]
    assert not cuda.attempt("cudaHostRegister", 1, 2, 2)
    assert device.calls["cudaGetLastError"] == 1
    assert cuda.attempt("cudaHostRegister", 1, 2, 2)
    assert device.calls["cudaGetLastError"] == 1


def test_a_batch_is_waited_for_and_not_for_ever(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    stream, event = cuda.stream(), cuda.event()
    cuda("cudaEventRecord", event, stream)
    assert cuda.wait(event, 0)
    device.hold = True
    assert not cuda.wait(event, 0)
    assert not cuda.wait(event, 0.001, spin=True)
    monkeypatch.setattr(cuda, "wait", lambda *_: False)
    with pytest.raises(FatalError, match=r"did not finish a batch within 10 s; see dmesg"):
        cuda.finish(event, stream)


def test_a_wait_that_spins_does_not_sleep(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, naps = Cuda(), list[float]()
    stream, event = cuda.stream(), cuda.event()
    cuda("cudaEventRecord", event, stream)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        device.hold = False

    monkeypatch.setattr(time, "sleep", nap)
    device.hold = True
    assert not cuda.wait(event, 0.001, spin=True)
    assert naps == []
    assert cuda.wait(event, 30)
    assert naps == [POLL_S]


def test_what_has_taken_long_is_looked_at_seldom_and_never_after_the_time_is_up(
    device: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, naps, now = Cuda(), list[float](), [100.0]
    stream, event = cuda.stream(), cuda.event()
    cuda("cudaEventRecord", event, stream)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    device.hold = True
    assert not cuda.wait(event, 0.01, since_s=100.0)
    assert naps[0] == POLL_S
    assert all(nap <= max(POLL_S, LATE * 0.01) for nap in naps)
    assert 20 < len(naps) < 60, "0.01 s are 200 times POLL_S"
    assert now[0] == pytest.approx(100.01)
    naps.clear()
    assert not cuda.wait(event, 0.001, since_s=0.0)
    assert naps == [pytest.approx(0.001)], "not for a sixteenth of 100 s"


def test_a_threads_timer_is_sharpened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    libc, found = ctypes.CDLL(None), list[int]()

    def life() -> None:
        sharpen_timer()
        found.append(libc.prctl(30, 0, 0, 0, 0))
        libc.prctl(29, 70_000, 0, 0, 0)
        sharpen_timer()
        found.append(libc.prctl(30, 0, 0, 0, 0))

    thread = threading.Thread(target=life)
    thread.start()
    thread.join()
    assert found == [1000, 70_000]


def test_a_graph_is_what_was_recorded_and_runs_when_it_is_launched(device: Simulation) -> None:
    cuda = Cuda()
    stream, event = cuda.stream(), cuda.event()
    pair = Pair(cuda, (2, 3), np.float32)
    pair.host[:] = 1
    graph = cuda.captured(stream, lambda: pair.upload(2, stream))
    assert graph is not None
    pair.host[:] = 7
    cuda("cudaGraphLaunch", graph, stream)
    pair.download(1, stream)
    pair.host[:] = 0
    pair.host[1:] = 5
    cuda.finish(event, stream)
    assert pair.host.tolist() == [[0, 0, 0], [5, 5, 5]], "the graph has read what was there when it ran"
    assert len(device.graphs) == 1, "the template is freed, the executable lives"


@pytest.mark.parametrize("where", ["cudaStreamEndCapture", "cudaGraphInstantiate", "record"])
def test_what_can_not_be_captured_is_no_graph_and_no_error(device: Simulation, where: str) -> None:
    cuda = Cuda()
    stream = cuda.stream()

    def record() -> None:
        if where == "record":
            raise FatalError("not in a capture")

    device.fail[where] = [1]
    assert cuda.captured(stream, record) is None
    assert device.calls["cudaGetLastError"] >= 1, "the error is forgotten"
    assert not device.graphs or where == "record"


def test_buffers_grow_and_are_freed_once(device: Simulation) -> None:
    cuda = Cuda()
    buffer, pinned = DeviceBuffer(cuda, 8), PinnedBuffer(cuda)
    first = buffer.address
    assert buffer.reserve(4) == buffer.reserve(8) == first
    assert device.calls["cudaMalloc"] == 1
    buffer.reserve(9)
    assert (device.calls["cudaMalloc"], len(device.memory)) == (2, 1)
    assert pinned.reserve(5) == pinned.reserve(3)
    assert pinned.bytes.nbytes == 5
    pinned.bytes[:] = 1
    pinned.reserve(6)
    assert (device.calls["cudaHostAlloc"], pinned.bytes.nbytes) == (2, 6)
    for one in (buffer, pinned):
        one.close()
        one.close()
        assert one.address == 0
    assert device.alive == 0


def test_a_pair_copies_the_first_rows_alone(device: Simulation) -> None:
    cuda = Cuda()
    stream, event = cuda.stream(), cuda.event()
    pair = Pair(cuda, (3, 2), np.int16)
    pair.host[:] = np.arange(6).reshape(3, 2)
    pair.upload(2, stream)
    cuda.finish(event, stream)
    pair.host[:] = -1
    pair.download(3, stream)
    cuda.finish(event, stream)
    assert pair.host[:2].tolist() == [[0, 1], [2, 3]]
    assert pair.host[2].tolist() not in ([-1, -1], [4, 5]), "the third row was never sent"
    pair.close()
    assert not device.memory


def test_a_device_keeps_named_arrays(device: Simulation) -> None:
    with open_device() as gpu:
        one, other = np.arange(3, dtype=np.float32), np.arange(4, dtype=np.int8)
        address = gpu.upload("one", one)
        assert gpu.upload("other", other) != address
        assert gpu.upload("one", one + 1) == address
        assert gpu.download("one", (3,), np.float32).tolist() == [1, 2, 3]
        assert gpu.download("other", (2, 2), np.int8).tolist() == [[0, 1], [2, 3]]
        assert gpu.buffer("none", 0)
        assert gpu.buffer("one", 1000) == gpu.buffer("one", 1000)
        assert len(device.memory) == 3
    assert device.alive == 0


def test_an_array_may_change_once_it_is_uploaded(device: Simulation) -> None:
    with open_device() as gpu:
        array = np.arange(3)
        gpu.upload("x", array)
        array[:] = 9
        assert gpu.download("x", (3,), array.dtype).tolist() == [0, 1, 2]


def test_a_lost_device_is_left_as_it_is(device: Simulation) -> None:
    def lose() -> None:
        with open_device() as gpu:
            gpu.upload("x", np.zeros(1))
            device.fail.update(cudaStreamSynchronize=[700], cudaFree=[700])
            gpu.synchronize()

    with pytest.raises(StickyError, match="cudaStreamSynchronize"):
        lose()


def test_the_machine_is_asked_for_what_binds_an_engine(device: Simulation) -> None:
    device.attributes[simulated.Attribute.cudaDevAttrIntegrated] = 1
    found = machine.detect(simulated.toolkit_on(device))
    assert (found.gpu, found.compute_capability, found.sm_count, found.integrated) == ("Orin", "8.7", 8, True)
    assert (found.cuda, found.tensorrt, found.flavour) == ("12.6", (10, 3, 0, 30), "tensorrt")
    device.fail["cudaStreamCreateWithFlags"] = [100]
    assert machine.detect(simulated.toolkit_on(device)).gpu is None
    device.fail["cudaStreamCreateWithFlags"] = [100]
    with pytest.raises(UnavailableError, match="CUDA finds no GPU"):
        machine.detect(simulated.toolkit_on(device), needs_gpu=True)
    device.fail["cudaStreamCreateWithFlags"] = [2]
    with pytest.raises(OutOfMemoryError, match="the GPU has no memory left"):
        machine.detect(simulated.toolkit_on(device))


def test_free_memory_is_what_cuda_says_and_none_without_a_gpu(
    device: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_gpu_memory() == 5000
    device.fail["cudaMemGetInfo"] = [100]
    assert free_gpu_memory() is None
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    assert free_gpu_memory() is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StickyError("CUDA error 700"), "BuildError"),
        (FatalError("CUDA error 1"), "BuildError"),
        (OutOfMemoryError("CUDA error 2"), "BuildKilledError"),
        (UnavailableError("no GPU"), "UnavailableError"),
    ],
)
def test_a_gpu_that_a_build_has_lost_is_not_lost_to_whoever_waits_for_it(error: EdgeinferError, kind: str) -> None:
    failed = worker._foreseen(error)
    assert failed.kind == kind
    assert error.message in failed.message
