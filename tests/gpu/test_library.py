"""CUDA's own library in place of cuda-python, on a real GPU: the same numbers come out. Elsewhere it skips."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.backends.tensorrt import Options, Preparation
from edgeinfer.config.card import Model, load_model
from edgeinfer.cuda import access
from edgeinfer.cuda.access import Access
from edgeinfer.errors import EdgeinferError, StickyError
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.device import open_device
from edgeinfer.gpu.kernel_launch import load_kernels
from edgeinfer.gpu.memory import DeviceBuffer
from edgeinfer.interfaces import Filter
from tests.gpu.test_backend import LEVEL, MAX_BATCH, SOURCES, opened, pictures, run_batch

pytestmark = pytest.mark.timeout(900)


def wheels_folder() -> str:
    """Where the wheel nvidia-cuda-runtime has put the library, if it is installed. JetPack's is found without."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    return next((f"{path.parent}/" for place in places for path in place.glob("*/lib/libcudart.so.*")), "")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("nanodet-g")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    level = int(LEVEL) if LEVEL else None
    return Options(opt_level=level, tactic_sources=SOURCES, cache=str(tmp_path_factory.mktemp("engines")))


@pytest.fixture
def through_library(monkeypatch: pytest.MonkeyPatch) -> Access:
    for name in (*access.RUNTIME_MODULES, *access.DRIVER_MODULES):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(access, "FOLDERS", (*access.FOLDERS, wheels_folder()))
    try:
        found = access.find()
        access.try_out(found)
    except EdgeinferError as error:
        pytest.skip(f"needs a GPU and libcudart: {error}")
    assert found.name.startswith("libcudart.so.")
    return found


def test_it_knows_the_device(through_library: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_device() as device:
        facts = device.facts()
    print(f"\n{through_library.name}: {facts}")
    monkeypatch.undo()
    try:
        with open_device() as device:
            others = device.facts()
    except EdgeinferError as error:
        pytest.skip(f"nothing to compare with: {error}")
    own = {name: value for name, value in facts.items() if name != "cuda"}
    assert own.items() <= others.items()


def test_memory_streams_events_and_graphs(through_library: Access) -> None:
    cuda = Cuda()
    stream, event = cuda.stream(), cuda.event()
    there, back = np.arange(1 << 20, dtype=np.uint8), np.zeros(1 << 20, np.uint8)
    buffer = DeviceBuffer(cuda, there.nbytes)

    def copies() -> None:
        cuda.upload(buffer.address, there.ctypes.data, there.nbytes, stream)

    copies()
    graph = cuda.captured(stream, lambda: cuda("cudaMemsetAsync", buffer.address, 7, 1000, stream))
    assert graph is not None
    cuda("cudaGraphLaunch", graph, stream)
    cuda.download(back.ctypes.data, buffer.address, back.nbytes, stream)
    cuda.finish(event, stream)
    assert (back[:1000] == 7).all()
    assert (back[1000:] == there[1000:]).all()
    buffer.close()


def test_the_backend_gives_the_same_through_both(
    model: Model, options: Options, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    try:
        prepared = Preparation(model, MAX_BATCH, options)
    except EdgeinferError as error:
        pytest.skip(f"needs TensorRT and a GPU: {error}")
    images, wanted = pictures(MAX_BATCH), Filter("boxes", "scores", 0.4)
    one = opened(prepared, wanted)
    first, quick = kept(one, images)
    one.close()
    way: Access = request.getfixturevalue("through_library")
    other = opened(Preparation(model, MAX_BATCH, options), wanted)
    second, slow = kept(other, images)
    assert other.detail == one.detail, "kernels, graphs and all"
    other.close()
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    print(f"\n{MAX_BATCH} pictures: cuda-python {quick * 1e6:.0f} µs, {way.name} {slow * 1e6:.0f} µs")


def kept(backend: TensorRt, images: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Counts, classes, scores and boxes of a batch, and the median time that one takes."""
    taken = []
    for _ in range(200):
        start = time.perf_counter()
        done = run_batch(backend, images)
        taken.append(time.perf_counter() - start)
        found = done.candidates
        assert found is not None
        arrays = [np.array(part) for part in (found.counts, found.class_ids, found.scores, found.boxes)]
        backend.release(done)
    return arrays, sorted(taken)[100]


def test_kernels_are_loaded_and_a_lost_gpu_is_known(through_library: Access) -> None:
    """The illegal address itself is tested in a process of its own (test_sticky.py)."""
    kernels = load_kernels(Cuda())
    assert kernels is not None
    kernels.close()
    with pytest.raises(EdgeinferError) as caught:
        Cuda()("cudaMalloc", 1 << 60)
    assert not isinstance(caught.value, StickyError)
    assert "CUDA error 2 (cudaErrorMemoryAllocation)" in caught.value.message
