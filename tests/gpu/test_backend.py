"""The TensorRT backend and the daemon on it, on a real GPU. Elsewhere they skip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from edgeinfer.backends._lane import ContextSlot
from edgeinfer.backends._loading import DeviceLoader
from edgeinfer.backends._tensorrt import TensorRt
from edgeinfer.backends.tensorrt import Options, Preparation
from edgeinfer.config.card import Model, load_model
from edgeinfer.decoders.boxes_scores import candidates
from edgeinfer.errors import EdgeinferError
from edgeinfer.frames import pool, store
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.device import free_memory
from edgeinfer.gpu.kernel_launch import Kernels, load_kernels
from edgeinfer.gpu.memory import DeviceBuffer, Pair
from edgeinfer.gpu.pins import Pins
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.isolation.source import Order, open_isolated
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.sources.demo import Demo
from edgeinfer.sources.demo import Options as DemoOptions
from edgeinfer.types import Colour, Float32, Image
from tests.drawn import Drawn, as_nv12, levels_of, network_input, on_device
from tests.reference import detect, iou

pytestmark = pytest.mark.timeout(900)
LEVEL = os.environ.get("EDGEINFER_TEST_OPT_LEVEL")
SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")  # the others need cuBLAS and cuDNN
MAX_BATCH = 8
CYCLES = int(os.environ.get("EDGEINFER_TEST_CYCLES", "12"))


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    level = int(LEVEL) if LEVEL else None
    return Options(opt_level=level, tactic_sources=SOURCES, cache=str(tmp_path_factory.mktemp("engines")))


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model("nanodet-g")


@pytest.fixture(scope="session")
def prepared(model: Model, options: Options) -> Preparation:
    try:
        return Preparation(model, MAX_BATCH, options)
    except EdgeinferError as error:
        pytest.skip(f"needs TensorRT and a GPU: {error}")


def opened(prepared: Preparation, wanted: Filter | None = None) -> TensorRt:
    backend = prepared.open(lambda _: None, threading.Event())
    backend.prepare(wanted)
    return backend


@pytest.fixture
def backend(prepared: Preparation) -> Iterator[TensorRt]:
    backend = opened(prepared)
    yield backend
    backend.close()


def pictures(count: int) -> list[Image]:
    """Different ones; every third in ordinary memory, the others in the pool's."""
    camera = Demo(DemoOptions(realtime=False))
    rendered = [camera.render(index * 7) for index in range(count)]
    return [image.copy() if index % 3 == 0 else pool.copy(image) for index, image in enumerate(rendered)]


def cuda_and_kernels() -> tuple[Cuda, Kernels]:
    """Skips where there is no GPU."""
    try:
        cuda = Cuda()
        kernels = load_kernels(cuda)
    except EdgeinferError as error:
        pytest.skip(f"needs a GPU: {error}")
    assert kernels is not None
    return cuda, kernels


def in_host_memory(shape: Shape, pinned: bool) -> HostSurface:
    """A surface of random samples, in a block of the pool's or in ordinary memory."""
    memory = pool.bytes(shape.size) if pinned else np.empty(shape.size, np.uint8)
    memory[:] = np.random.default_rng(shape.width).integers(0, 256, shape.size, np.uint8)
    return HostSurface(memory, shape, Colour("bt709"))


def run_batch(backend: TensorRt, images: Sequence[Any]) -> Slot:
    slot = backend.acquire()
    assert slot is not None
    backend.load(slot, images)
    backend.submit(slot)
    done = backend.collect(10)
    assert done is slot
    return done


def scores_of(backend: TensorRt, images: Sequence[Any]) -> Float32:
    done = run_batch(backend, images)
    scores: Float32 = done.outputs["scores"].copy()
    backend.release(done)
    return scores


def test_batches_come_back_in_order_whatever_is_in_flight(backend: TensorRt) -> None:
    images = pictures(40)
    alone = [scores_of(backend, [image])[0] for image in images]
    together: list[Float32] = []
    waiting = list(images)
    while len(together) < len(images):
        slot = backend.acquire() if waiting else None
        if slot is not None:
            count = min(1 + len(waiting) % MAX_BATCH, len(waiting))
            backend.load(slot, [waiting.pop(0) for _ in range(count)])
            backend.submit(slot)
            continue
        done = backend.collect(10)
        assert done is not None
        together += [scores.copy() for scores in done.outputs["scores"]]
        backend.release(done)
    for one, many in zip(alone, together, strict=True):
        assert np.abs(one - many).max() < 0.02  # another batch may take other tactics


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 640), (1080, 607), (33, 1000), (416, 416), (5, 3)])
def test_the_kernel_gives_what_the_cpu_gives(color: Literal["bgr", "rgb"], height: int, width: int) -> None:
    """Within one level of 255, before the normalisation."""
    card = msgspec.structs.replace(load_model("nanodet-g").card.input, color=color)
    cuda, kernels = cuda_and_kernels()
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    pair = Pair(cuda, (2, 3, card.height, card.width), np.float32)
    loader = DeviceLoader(cuda, card, Pins(cuda, mapped=False), 2, mapped=False)
    loader.kernel = kernels.letterbox(card, False, loader.device, pair.device)
    stream, event = cuda.stream(), cuda.event()
    (box,) = loader.load([image], stream)
    loader.record(2, stream)
    pair.download(2, stream)
    cuda("cudaEventRecord", event, stream)
    assert cuda.wait(event, 10.0)
    wanted = np.empty(pair.shape[1:], np.float32)
    assert Preprocessor(card)(image, wanted) == box
    std = np.array(card.std, np.float32)[:, None, None]
    assert np.abs((pair.host[0] - wanted) * std).max() <= 1.0
    blank = (card.fill - np.array(card.mean)) / np.array(card.std)
    assert np.allclose(pair.host[1], blank[:, None, None], atol=1e-5), "a place without a picture is padding"
    loader.close()
    pair.close()


LAYOUTS = (
    Drawn(1280, 720, gap=64),
    Drawn(641, 359, depth=2, gap=130, colour=Colour("bt2020")),
    Drawn(320, 241, interleaved=False, colour=Colour("bt709", full_range=True)),
    Drawn(99, 1001, interleaved=False, swapped=True, gap=3),
)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_the_kernel_reads_surfaces_as_the_formula_says(color: Literal["bgr", "rgb"], half: bool) -> None:
    """Those on the device and those in host memory, pinned or not, in one batch; within one level of 255."""
    card = msgspec.structs.replace(load_model("nanodet-g").card.input, color=color)
    cuda, kernels = cuda_and_kernels()
    lying = [on_device(cuda, drawn) for drawn in LAYOUTS]
    shapes = [Shape("nv12", 1280, 720), Shape("i420", 641, 359), Shape("p010", 642, 358)]
    in_host = [in_host_memory(shape, pinned) for shape in shapes for pinned in (True, False)]
    pair = Pair(cuda, (len(lying) + len(in_host), 3, card.height, card.width), np.float16 if half else np.float32)
    loader = DeviceLoader(cuda, card, Pins(cuda, mapped=False), pair.shape[0], mapped=False)
    loader.kernel = kernels.letterbox(card, half, loader.device, pair.device)
    stream, event = cuda.stream(), cuda.event()
    given: list[Any] = [*(surface for surface, _ in lying), *in_host]
    assert all(loader.takes(surface) for surface in given)
    loader.load(given, stream)
    loader.record(len(given), stream)
    pair.download(len(given), stream)
    cuda.record(event, stream)
    assert cuda.wait(event, 10.0)
    levels = [drawn.levels(drawn.memory()) for drawn in LAYOUTS] + [levels_of(surface) for surface in in_host]
    std = np.array(card.std, np.float32)[:, None, None]
    for row, (surface, planes) in enumerate(zip(given, levels, strict=True)):
        worst = np.abs((pair.host[row] - network_input(planes, surface.colour, card)) * std).max()
        print(f"\n{surface.width} x {surface.height}: {worst:.3f} of 255")
        assert worst <= 1.0
    loader.close()
    pair.close()
    for _, buffer in lying:
        buffer.close()


def test_the_same_picture_is_detected_whatever_brings_it(prepared: Preparation) -> None:
    """As BGR, as surfaces in host memory, and on the device; each by itself and all in one batch."""
    backend, cuda = opened(prepared), Cuda()
    (bgr,) = pictures(1)
    host = as_nv12(bgr)
    there, buffer = on_device(cuda, Drawn(host.width, host.height), host.memory)
    kinds = [bgr, host, there, host.image()]
    alone = [scores_of(backend, [kind])[0] for kind in kinds]
    together = scores_of(backend, kinds)
    found = [sorted(np.unique(scores.argmax(1)[scores.max(1) >= 0.5])) for scores in alone]
    print(f"\nlargest difference of a score: {[float(np.abs(scores - alone[0]).max()) for scores in alone]}")
    assert found[0]
    for one, many, classes in zip(alone, together, found, strict=True):
        assert np.abs(one - many).max() < 0.02  # another batch may take other tactics
        assert np.abs(one - alone[0]).max() < 0.1  # chroma is halved
        assert classes == found[0]
    assert np.abs(alone[1] - alone[2]).max() == 0, "the same samples"
    backend.close()
    buffer.close()


def test_a_picture_of_another_process_is_read_where_that_wrote_it() -> None:
    """Memory that is shared with a source's process can be pinned like our own, and is let go of before it is freed."""
    try:
        cuda = Cuda()
        stream = cuda.stream()
    except EdgeinferError as error:
        pytest.skip(f"needs a GPU: {error}")
    options, held = DemoOptions(realtime=False), store.held
    pins, direct = Pins(cuda, mapped=False), Demo(options)
    source = open_isolated(Order("demo", "demo:", options), "cam", lambda _: 20)
    back = np.empty((options.height, options.width, 3), np.uint8)
    device = DeviceBuffer(cuda, back.nbytes)
    with closing(device), closing(source):
        for index in range(6):
            capture = source.read()
            assert capture is not None
            address = pins.address(capture.image)
            assert address, "it would be copied once more"
            cuda.upload(device.address, address, back.nbytes, stream)
            cuda.download(back.ctypes.data, device.address, back.nbytes, stream)
            cuda("cudaStreamSynchronize", stream)
            assert (back == direct.render(index)).all()
    del capture
    assert store.held - held < 2 * back.nbytes, "what was pinned is given back"


@pytest.mark.parametrize("threshold", [0.4, 0.05, 0.001, 0.0])
def test_the_gpu_chooses_the_candidates_that_the_cpu_chooses(prepared: Preparation, threshold: float) -> None:
    backend = opened(prepared, Filter("boxes", "scores", threshold))
    assert "chosen on the GPU" in backend.detail
    done = run_batch(backend, pictures(5))
    assert isinstance(done, ContextSlot)
    whole = {}
    for name, pair in done.network.outputs.items():
        pair.download(5, done.stream)
        done.finish()
        whole[name] = pair.host[:5]
    kept = done.candidates
    assert kept is not None
    start = 0
    for index, count in enumerate(kept.counts.tolist()):
        rows, classes, best = candidates(whole["scores"][index], threshold)
        assert count == len(rows)
        mine = slice(start, start + count)
        np.testing.assert_array_equal(kept.class_ids[mine], classes)
        np.testing.assert_array_equal(kept.scores[mine], best)
        np.testing.assert_array_equal(kept.boxes[mine], whole["boxes"][index][rows])
        start += count
    backend.release(done)
    backend.close()


def test_a_graph_gives_what_its_parts_give(prepared: Preparation, model: Model, options: Options) -> None:
    images = pictures(MAX_BATCH)
    plain = Preparation(model, MAX_BATCH, msgspec.structs.replace(options, graphs=False))
    one, other = opened(prepared), opened(plain)
    assert ", CUDA graphs" in one.detail
    assert "no CUDA graphs" in other.detail
    for count in (1, 2, 3, 5, MAX_BATCH, 1, 4):
        assert np.abs(scores_of(one, images[:count]) - scores_of(other, images[:count])).max() < 1e-3
    one.close()
    other.close()


def test_without_the_kernel_the_cpu_preprocesses(prepared: Preparation, model: Model, options: Options) -> None:
    images = pictures(3)
    slow = opened(Preparation(model, MAX_BATCH, msgspec.structs.replace(options, gpu_preprocess=False)))
    fast = opened(prepared)
    assert "preprocessing on the CPU" in slow.detail
    assert "preprocessing on the GPU" in fast.detail
    assert np.abs(scores_of(slow, images) - scores_of(fast, images)).max() < 0.02
    slow.close()
    fast.close()


def test_opening_and_closing_leaks_no_gpu_memory(prepared: Preparation) -> None:
    free = []
    for _ in range(CYCLES):
        backend = opened(prepared, Filter("boxes", "scores", 0.4))
        backend.release(run_batch(backend, pictures(2)))
        backend.close()
        free.append(free_memory())
    print(f"\nfree GPU memory after 2 and {CYCLES} cycles: {free[1]} {free[-1]}")
    assert free[1] - free[-1] < 16 << 20


POISON = """
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_launch import load_kernels
from edgeinfer.gpu.memory import DeviceBuffer, Pair
from edgeinfer.config.card import load_model
from edgeinfer.errors import FatalError

cuda = Cuda()
pair, stream, event = Pair(cuda, (1, 3, 416, 416), "f4"), cuda.stream(), cuda.event()
kernel = load_kernels(cuda).letterbox(load_model("nanodet-g").card.input, False, 4096, pair.device)
for attempt in range(2):
    try:
        kernel(1, stream)
        cuda("cudaEventRecord", event, stream)
        cuda.wait(event, 10.0)
    except FatalError as error:
        print(error.message)
"""


def test_an_illegal_address_is_fatal_for_good(prepared: Preparation) -> None:
    """In a process of its own: nothing can use the GPU from there after that."""
    process = subprocess.run([sys.executable, "-c", POISON], capture_output=True, text=True, check=True)
    print(f"\n{process.stdout}")
    lines = process.stdout.splitlines()
    assert len(lines) == 2
    assert all("CUDA error 700" in line for line in lines)


def edgeinfer_run(options: Options, *args: str) -> subprocess.CompletedProcess[str]:
    settings = [f"backend.tactic_sources={list(SOURCES)}", f"backend.cache={options.cache}", "publish=null"]
    if options.opt_level is not None:
        settings.append(f"backend.opt_level={options.opt_level}")
    command = [sys.executable, "-m", "edgeinfer", "run", *args]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_daemon_finds_what_onnx_runtime_finds(prepared: Preparation, options: Options) -> None:
    process = edgeinfer_run(
        options,
        "--backend",
        "tensorrt",
        "--source",
        "demo:",
        "--frames",
        "150",
        "--jsonl",
        "-",
        "--set",
        "sources.demo.realtime=false",
        "--set",
        f"model.max_batch={MAX_BATCH}",
    )
    assert process.returncode == 0, process.stderr
    camera, matched, expected = Demo(DemoOptions(realtime=False)), 0, 0
    for line in map(json.loads, process.stdout.splitlines()):
        assert line["backend"] == "tensorrt-fp16"
        for class_id, _, box in detect(camera.render(line["frame_id"])):
            expected += 1
            matched += any(d["class_id"] == class_id and iou(d["box"], box) >= 0.9 for d in line["detections"])
    print(f"\nmatched {matched} of {expected}")
    assert expected >= 150
    assert matched >= 0.98 * expected


def test_the_daemon_serves_while_it_builds_and_then_swaps(
    prepared: Preparation, options: Options, tmp_path: Path
) -> None:
    fresh = Options(opt_level=options.opt_level, tactic_sources=SOURCES, cache=str(tmp_path / "fresh"))
    started = time.monotonic()
    process = edgeinfer_run(fresh, "--source", "demo:", "--frames", "4000", "--jsonl", "-")
    print(f"\n{time.monotonic() - started:.0f} s\n{process.stderr}")
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(4000))
    backends = [line["backend"] for line in lines]
    swap = backends.index("tensorrt-fp16")
    assert swap > 0
    assert set(backends[:swap]) == {"onnxruntime-cpu"}
    assert set(backends[swap:]) == {"tensorrt-fp16"}
