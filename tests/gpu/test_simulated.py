"""The TensorRT backend in all its ways, on a GPU that is simulated. `test_backend.py` has a real one."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from edgeinfer.backends import _engine, _raw, _reading
from edgeinfer.backends._engine import batch_sizes
from edgeinfer.backends._lane import ContextSlot
from edgeinfer.backends._tensorrt import Settings, TensorRt
from edgeinfer.config.card import InputCard
from edgeinfer.decoders.boxes_scores import candidates
from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.probation import Probation
from edgeinfer.errors import ConfigError, EdgeinferError, FatalError, OutOfMemoryError, StickyError, UnavailableError
from edgeinfer.frames import FramePool, Store
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.kernel_code import PLACES
from edgeinfer.gpu.kernel_launch import load_kernels
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.gpu.pins import Pins
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Colour, Float32, Image
from tests.drawn import Drawn, Lying, levels_of, network_input, on_device
from tests.engine.test_cache import put
from tests.gpu import simulated
from tests.gpu.simulated import ECHO, Attribute, Simulation

CARD = InputCard(name="images", width=8, height=8, color="rgb", mean=[0.0] * 3, std=[1.0] * 3)
SETTINGS = Settings(4, 2, spin=False, graphs=True, gpu_preprocess=True, plugins=(), label="fp16")
READS = Filter("boxes", "scores", 100.0)

Make = Callable[..., TensorRt]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return simulated.install(monkeypatch)


@pytest.fixture
def make(device: Simulation) -> Make:
    def made(
        wanted: Filter | None = None, card: InputCard = CARD, probation: Probation | None = None, **changes: Any
    ) -> TensorRt:
        plan = {
            name: changes.pop(name)
            for name in list(changes)
            if name in {*ECHO, "contexts", "least", "room", "single", "stubborn"}
        }
        kit = simulated.toolkit_on(device)
        backend = TensorRt(kit, simulated.echo_plan(kit, **plan), card, replace(SETTINGS, **changes), probation)
        backend.prepare(wanted)
        return backend

    return made


def picture(seed: int, width: int = 20, height: int = 12) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def submitted(backend: TensorRt, *images: Any) -> ContextSlot:
    slot = backend.acquire()
    assert isinstance(slot, ContextSlot)
    backend.load(slot, images)
    backend.submit(slot)
    return slot


def ran(backend: TensorRt, *images: Any) -> Slot:
    slot = submitted(backend, *images)
    assert backend.collect(5) is slot
    return slot


def prepared(image: Image, card: InputCard = CARD) -> Float32:
    out = np.empty((3, 8, 8), np.float32)
    Preprocessor(card)(image, out)
    return out


def shows(slot: Slot, *images: Image) -> bool:
    rows = slot.outputs["boxes"].reshape(-1, 3, 8, 8)
    return len(rows) == len(images) and all(
        np.abs(row - prepared(image)).max() <= 1 for row, image in zip(rows, images, strict=True)
    )


def test_what_it_says_of_itself(make: Make) -> None:
    backend = make(READS)
    assert (backend.name, backend.versions, backend.engine_key) == ("tensorrt-fp16", {"tensorrt": "10.3.0.30"}, "")
    assert backend.detail == (
        "3 execution contexts, batches up to 4, CUDA graphs, preprocessing on the GPU, candidates chosen on the GPU"
    )
    plain = make(READS, graphs=False, gpu_preprocess=False, streams=1, label="plan")
    assert (plain.name, plain.slots) == ("tensorrt-plan", 2)
    assert plain.detail == (
        "2 execution contexts, batches up to 4, no CUDA graphs, preprocessing on the CPU, candidates chosen on the CPU"
    )


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_batches_are_filled_up_to_a_few_sizes(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize(
    ("shape", "most", "asked", "batch", "sizes"),
    [(-1, 4, 16, 4, [1, 2, 4]), (-1, 16, 3, 3, [1, 2, 3]), (2, 2, 8, 2, [2]), (3, 3, 1, 3, [3])],
)
def test_the_largest_batch_is_the_engines_or_the_one_asked_for(
    make: Make, shape: int, most: int, asked: int, batch: int, sizes: list[int]
) -> None:
    known = {kind: [[n, [shape, *s[1:]], d] for n, s, d in ECHO[kind]] for kind in ("inputs", "outputs")}  # type: ignore[attr-defined]
    backend = make(**known, largest=most, max_batch=asked)
    assert (backend.max_batch, backend.lane_depth, backend.batches) == (batch, batch, sizes)
    assert backend.output_specs[0].shape == (shape, 48, 4)
    images = [picture(seed) for seed in range(batch)]
    assert shows(ran(backend, *images), *images)
    assert shows(ran(backend, images[0]), images[0])


def test_an_old_tensorrt_gives_one_context(make: Make) -> None:
    backend = make(contexts=1)
    assert backend.slots == 1
    assert shows(ran(backend, picture(1)), picture(1))


def test_a_batch_is_one_launch_where_there_are_graphs(make: Make, device: Simulation) -> None:
    backend = make(READS)
    before = dict(device.calls)
    for count in (1, 2, 3, 4):
        backend.release(ran(backend, *[picture(seed) for seed in range(count)]))
    made = {name: count - before.get(name, 0) for name, count in device.calls.items()}
    assert made["cudaGraphLaunch"] == 4
    assert not made["cuLaunchKernel"]
    assert len(device.graphs) == 9, "for three lanes and batches of 1, 2 and 4"


@pytest.mark.parametrize("kept", [_reading.KEPT, 5])
@pytest.mark.parametrize("graphs", [True, False])
def test_the_candidates_are_those_that_the_cpu_would_choose(
    make: Make, monkeypatch: pytest.MonkeyPatch, graphs: bool, kept: int
) -> None:
    """Also those beyond what comes back with every batch."""
    monkeypatch.setattr(_reading, "KEPT", kept)
    backend = make(READS, graphs=graphs)
    images = [picture(seed) for seed in range(3)]
    for threshold in (100.0, 200.0, 0.0):  # which keeps every row
        backend.prepare(Filter("boxes", "scores", threshold))
        slot = ran(backend, *images)
        found = slot.candidates
        assert found is not None
        assert not slot.outputs
        starts = np.concatenate([[0], np.cumsum(found.counts)])
        for index, image in enumerate(images):
            scores = np.round(prepared(image)).reshape(48, 4)
            rows, _, best = candidates(scores, threshold)
            mine = slice(starts[index], starts[index + 1])
            exact = np.abs(best - threshold) > 1  # the GPU may round the other way
            if exact.all():
                assert found.counts[index] == len(rows)
                assert np.abs(found.scores[mine] - best).max(initial=0) <= 1
                assert np.abs(found.boxes[mine] - scores[rows]).max(initial=0) <= 1
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert threshold or int(found.counts.sum()) == 3 * 48
        backend.release(slot)


def test_another_decoder_reads_other_outputs(make: Make, device: Simulation) -> None:
    backend = make(READS)
    backend.prepare(Filter("scores", "boxes", 10.0))
    slot = ran(backend, picture(1))
    assert slot.candidates is not None
    backend.release(slot)
    backend.prepare(None)
    assert shows(ran(backend, picture(1)), picture(1))
    backend.close()
    assert device.alive == 0


@pytest.mark.parametrize(
    "wanted", [None, Filter("boxes", "none", 1.0), Filter("none", "scores", 1.0), Filter("boxes", "images", 1.0)]
)
def test_what_the_gpu_can_not_filter_comes_whole(make: Make, wanted: Filter | None) -> None:
    slot = ran(make(wanted), picture(1))
    assert slot.candidates is None
    assert shows(slot, picture(1))


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        ([-1, 48, 4], [-1, 24, 8]),
        ([-1, 32, 6], [-1, 32, 6]),
        ([-1, 192], [-1, 192]),
        ([-1, 4, 12, 4], [-1, 4, 12, 4]),
    ],
)
def test_outputs_of_other_shapes_are_filtered_on_the_cpu(make: Make, boxes: list[int], scores: list[int]) -> None:
    outputs = [["boxes", boxes, "float32"], ["scores", scores, "float32"]]
    backend = make(READS, outputs=outputs)
    assert "candidates chosen on the CPU" in backend.detail
    assert ran(backend, picture(1)).outputs["scores"].shape == (1, *scores[1:])


def test_without_a_capture_it_runs_all_the_same(make: Make, device: Simulation) -> None:
    device.fail["cudaStreamEndCapture"] = [0, 1]
    backend = make(READS)
    assert ", no CUDA graphs," in backend.detail
    assert not device.graphs, "those that were made are freed"
    backend.prepare(None)
    assert shows(ran(backend, picture(1)), picture(1))


@pytest.mark.parametrize("gpu_preprocess", [True, False])
def test_a_network_in_half_precision(make: Make, gpu_preprocess: bool) -> None:
    inputs = [["images", [-1, 3, 8, 8], "float16"]]
    outputs = [["boxes", [-1, 48, 4], "float16"], ["scores", [-1, 48, 4], "float16"]]
    backend = make(READS, inputs=inputs, outputs=outputs, gpu_preprocess=gpu_preprocess)
    assert "candidates chosen on the CPU" in backend.detail
    slot = ran(backend, picture(1), picture(2))
    assert slot.outputs["boxes"].dtype == np.float16
    assert shows(slot, picture(1), picture(2))


def test_a_network_of_bytes_is_fed_by_the_cpu(make: Make) -> None:
    with pytest.raises(ConfigError, match="NumPy has no type for"):
        make(inputs=[["images", [-1, 3, 8, 8], "bfloat16"]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [*ECHO["inputs"], ["more", [-1, 2], "float32"]]}, r"has 2 inputs: images, more; only one"),  # type: ignore[misc]
        (
            {"inputs": [["images", [-1, 3, 9, 8], "float32"]]},
            r"is \[-1, 3, 9, 8\]; the card needs \[N, 3, 8, 8\]",
        ),
        ({"inputs": [["images", [-1, 3, 8, 9], "float32"]]}, "correct input.width and input.height"),
        ({"inputs": [["images", [-1, 192], "float32"]]}, "the card needs"),
        (
            {"outputs": [["boxes", [-1, -1, 4], "float32"]]},
            r"'boxes' depends on the data.*--backend onnxruntime",
        ),
    ],
)
def test_an_engine_that_does_not_fit_its_card_is_refused(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_an_input_of_free_size_takes_the_cards(make: Make) -> None:
    backend = make(inputs=[["images", [-1, 3, -1, -1], "float32"]])
    assert shows(ran(backend, picture(1)), picture(1))


def test_a_plan_that_tensorrt_refuses_says_why(device: Simulation) -> None:
    kit, other = simulated.toolkit_on(device), simulated.toolkit_on(device, "8.6.0")
    with pytest.raises(PlanError, match="loading the engine failed: the plan is of another TensorRT version"):
        TensorRt(kit, simulated.echo_plan(other), CARD, SETTINGS, None)


def test_no_context_is_fatal(make: Make, monkeypatch: pytest.MonkeyPatch, device: Simulation) -> None:
    kit = simulated.toolkit_on(device)
    monkeypatch.setattr(kit.trt.ICudaEngine, "create_execution_context", lambda _: None)
    with pytest.raises(FatalError, match="can't create an execution context; is there enough GPU memory"):
        TensorRt(kit, simulated.echo_plan(kit), CARD, SETTINGS, None)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Requested amount of GPU memory could not be allocated: OutOfMemory", OutOfMemoryError),
        ("enqueue: CUDA error 700 in a kernel", StickyError),
        ("an assertion failed", FatalError),
    ],
)
def test_a_batch_that_tensorrt_does_not_start(
    make: Make, monkeypatch: pytest.MonkeyPatch, line: str, kind: type[EdgeinferError]
) -> None:
    backend = make(graphs=False)
    slot = backend.acquire()
    assert slot is not None
    backend.load(slot, [picture(1)])
    backend._free[0].network.context.trt.world.refusals.append(line)
    with pytest.raises(EdgeinferError, match=f"did not start a batch of 1: ERROR {line}") as caught:
        backend.submit(slot)
    assert type(caught.value) is kind
    assert backend.collect(0) is None
    backend.release(slot)
    assert shows(ran(backend, picture(1)), picture(1))


def test_a_batch_that_never_ends_is_fatal(make: Make, device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make()
    device.hold = True
    submitted(backend, picture(1))
    assert backend.collect(0) is None
    monkeypatch.setattr(PATIENCE, "usual_s", 0.0)
    with pytest.raises(FatalError, match=r"has not finished a batch within 0 s; see dmesg, then restart"):
        backend.collect(0)
    device.hold = False


def test_inference_is_timed_from_submit_to_its_end(make: Make) -> None:
    backend = make()
    slot = submitted(backend, picture(1))
    slot.submitted_s -= 5.0
    assert backend.collect(1) is slot
    assert 5000 <= slot.infer_ms < 6000


@pytest.mark.parametrize("spin", [True, False])
def test_collecting_spins_where_that_is_asked_for(
    make: Make, device: Simulation, monkeypatch: pytest.MonkeyPatch, spin: bool
) -> None:
    backend, naps = make(spin=spin), list[float]()
    monkeypatch.setattr("edgeinfer.gpu.cuda.time.sleep", naps.append)
    device.hold = True
    submitted(backend, picture(1))
    assert backend.collect(0.001) is None
    assert bool(naps) != spin
    device.hold = False


def test_an_error_of_the_gpu_comes_out_of_collect(make: Make, device: Simulation) -> None:
    backend = make()
    submitted(backend, picture(1))
    device.fail["cudaEventQuery"] = [700]
    with pytest.raises(StickyError, match="cudaEventQuery: CUDA error 700"):
        backend.collect(1)


def test_no_memory_for_many_candidates_gives_up_that_batch_alone(
    make: Make, device: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "KEPT", 2)
    backend = make(Filter("boxes", "scores", 0.0))
    first, second = submitted(backend, picture(1)), submitted(backend, picture(2))
    assert backend.acquire() is not None
    device.fail["cudaHostAlloc"] = [2]
    with pytest.raises(OutOfMemoryError):
        backend.collect(5)
    assert backend.acquire() is first
    assert backend.collect(5) is second
    assert second.candidates is not None
    assert second.candidates.counts.tolist() == [48]


def test_a_close_that_runs_out_of_memory_still_frees_everything(
    make: Make, device: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "KEPT", 2)
    backend = make(Filter("boxes", "scores", 0.0))
    submitted(backend, picture(1))
    submitted(backend, picture(2))
    device.fail["cudaHostAlloc"] = [2]
    backend.close()
    assert device.alive == 0


# --- how frames get there


def copies(device: Simulation, backend: TensorRt, image: Any) -> int:
    before = device.calls.get("cudaMemcpyAsync", 0)
    backend.load(backend._lanes[0], [image])
    return device.calls.get("cudaMemcpyAsync", 0) - before


def test_a_frame_is_copied_once_and_on_a_jetson_not_at_all(make: Make, device: Simulation) -> None:
    assert copies(device, make(), picture(1)) == 1
    device.attributes[Attribute.cudaDevAttrIntegrated] = 1
    jetson = make()
    assert copies(device, jetson, picture(1)) == 0
    assert shows(ran(jetson, picture(1), picture(2)), picture(1), picture(2))


def test_frames_of_the_pool_are_pinned_once_and_read_where_they_lie(make: Make, device: Simulation) -> None:
    device.attributes[Attribute.cudaDevAttrIntegrated] = 1
    backend = make()
    image = FramePool(Store()).copy(picture(1))
    backend.load(backend._lanes[0], [image])
    backend.load(backend._lanes[1], [image])
    assert device.calls["cudaHostRegister"] == 1
    picked = PLACES.unpack(bytes(backend._lanes[0].loader._host[: PLACES.size]))  # type: ignore[attr-defined]
    assert picked[0] == image.ctypes.data
    another = make()
    another.load(another._lanes[0], [image])
    assert device.calls["cudaHostRegister"] == 1, "it stays pinned from one backend to the next"
    assert shows(ran(backend, image), image)


@pytest.mark.parametrize("mapped", [True, False])
def test_what_can_not_be_pinned_or_is_a_part_of_a_frame_is_staged(device: Simulation, mapped: bool) -> None:
    pins, pool = Pins(Cuda(), mapped), FramePool(Store())
    whole = pool.copy(picture(1, 300, 200))
    address = pins.address(whole)
    assert address == whole.ctypes.data
    assert device.calls.get("cudaHostGetDevicePointer", 0) == int(mapped)
    assert pins.address(whole[:, :100]) == 0
    assert pins.address(whole[10:]) == 0
    assert pins.address(picture(1)) == 0, "none of the pool's"
    device.fail["cudaHostRegister"] = [1]
    refused = pool.copy(picture(2, 301, 200))
    assert pins.address(refused) == 0
    assert pins.address(refused) == 0
    assert device.calls["cudaHostRegister"] == 2, "tried once"


LAYOUTS: tuple[Layout, ...] = ("nv12", "i420", "p010")


def in_host_memory(layout: Layout, seed: int, pool: FramePool | None = None, size: tuple[int, int] = (21, 13)) -> Any:
    """A surface of random samples, in a block of the pool's or in memory from elsewhere."""
    shape = Shape(layout, *size)
    memory = np.empty(shape.size, np.uint8) if pool is None else pool.bytes(shape.size)
    memory[:] = np.random.default_rng(seed).integers(0, 256, shape.size, np.uint8)
    return HostSurface(memory, shape, Colour("bt709"))


def wanted_of(one: Any, card: InputCard = CARD) -> Float32:
    """What the network must get of a picture of any kind."""
    if isinstance(one, np.ndarray):
        return prepared(one, card)
    levels = one._drawn.levels(one._memory) if isinstance(one, Lying) else levels_of(one)
    return network_input(levels, one.colour, card)


@pytest.mark.parametrize("integrated", [0, 1])
@pytest.mark.parametrize("graphs", [True, False])
def test_a_batch_may_hold_pictures_of_all_kinds(make: Make, device: Simulation, integrated: int, graphs: bool) -> None:
    device.attributes[Attribute.cudaDevAttrIntegrated] = integrated
    cuda, pool = Cuda(), FramePool(Store())
    kinds = [Drawn(20, 12, gap=5), Drawn(31, 17, interleaved=False, swapped=True), Drawn(18, 30, depth=2, gap=4)]
    there = [on_device(cuda, drawn) for drawn in kinds]
    pictures: list[Any] = [picture(1), pool.copy(picture(2)), *(surface for surface, _ in there)]
    pictures += [in_host_memory(layout, seed, owner) for seed, layout in enumerate(LAYOUTS) for owner in (None, pool)]
    backend = make(graphs=graphs)
    assert all(backend.takes(one) for one in pictures if not isinstance(one, np.ndarray))
    for start in range(len(pictures)):
        batch = [pictures[(start + k) % len(pictures)] for k in range(4)]
        slot = ran(backend, *batch)
        for row, one in zip(slot.outputs["boxes"].reshape(-1, 3, 8, 8), batch, strict=True):
            assert np.abs(row - wanted_of(one)).max() <= 1
        backend.release(slot)


def test_a_surface_is_copied_once_where_it_must_be(make: Make, device: Simulation) -> None:
    pool, (there, _) = FramePool(Store()), on_device(Cuda(), Drawn(20, 12))
    backend = make()
    assert copies(device, backend, in_host_memory("i420", 1, pool)) == 1
    assert device.calls["cudaHostRegister"] == 1
    assert copies(device, backend, in_host_memory("i420", 1)) == 1
    assert copies(device, backend, there) == 0
    device.attributes[Attribute.cudaDevAttrIntegrated] = 1
    assert copies(device, make(), in_host_memory("nv12", 1, pool)) == 0


def test_the_cpu_is_given_what_lies_in_its_memory(make: Make) -> None:
    backend, surface = make(gpu_preprocess=False), in_host_memory("nv12", 1)
    assert backend.takes(surface)
    surface.on_device = True  # as one is that it can't read
    assert not backend.takes(surface)


@pytest.mark.slow
def test_what_the_gpu_reads_is_kept_until_its_slot_is_given_back(make: Make) -> None:
    backend = make()
    image = FramePool(Store()).copy(picture(1))
    kept = weakref.ref(image)
    slot = submitted(backend, image)
    del image
    assert kept() is not None
    assert backend.collect(5) is slot
    backend.release(slot)
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_the_kernel_is_told_what_the_card_says(make: Make, color: Any, resize: Any) -> None:
    card = msgspec.structs.replace(
        CARD, color=color, resize=resize, mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 8.0], fill=50
    )
    slot = ran(make(card=card), picture(1))
    difference = slot.outputs["boxes"].reshape(3, 8, 8) - prepared(picture(1), card)
    assert np.abs(difference * np.array(card.std)[:, None, None]).max() <= 1


@pytest.mark.parametrize("gpu_preprocess", [True, False])
def test_an_input_that_is_not_square(make: Make, gpu_preprocess: bool) -> None:
    card = msgspec.structs.replace(CARD, width=12, height=16)
    outputs = [[name, [-1, 144, 4], "float32"] for name in ("boxes", "scores")]
    inputs = [["images", [-1, 3, 16, 12], "float32"]]
    backend = make(READS, card, inputs=inputs, outputs=outputs, gpu_preprocess=gpu_preprocess)
    backend.prepare(None)
    images = picture(1, 50, 20), picture(2, 20, 50)
    found = ran(backend, *images).outputs["boxes"].reshape(2, 3, 16, 12)
    for row, image in zip(found, images, strict=True):
        expected = np.empty((3, 16, 12), np.float32)
        Preprocessor(card)(image, expected)
        assert np.abs(row - expected).max() <= 1


def test_a_place_without_a_picture_is_padding(make: Make) -> None:
    backend = make(graphs=False)
    backend.release(ran(backend, *[picture(seed) for seed in range(4)]))
    slot = submitted(backend, *[picture(seed) for seed in range(3)])
    assert backend.collect(5) is slot
    slot.network.pairs["boxes"].download(4, slot.stream)
    slot.finish()
    assert set(slot.network.pairs["boxes"].host[3].ravel()) == {114.0}


def test_a_gpu_without_kernels_leaves_it_to_the_cpu(
    make: Make, device: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    device.attributes[Attribute.cudaDevAttrComputeCapabilityMajor] = 5
    with caplog.at_level(logging.WARNING):
        assert "preprocessing on the CPU" in make().detail
    assert "no kernels for compute capability 5.7" in caplog.text
    caplog.clear()
    device.attributes[Attribute.cudaDevAttrComputeCapabilityMajor] = 8
    device.fail["cuModuleLoadData"] = [1]
    assert load_kernels(Cuda()) is None
    assert "cuModuleLoadData: CUDA error 1" in caplog.text
    assert load_kernels(Cuda()) is not None


# --- probation


def test_an_engine_that_serves_well_loses_its_strike(make: Make, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    engine, now = put(cache), [0.0]
    backend = make(probation=Probation(cache, engine, lambda: now[0]))
    assert (backend.engine_key, engine.strikes) == (engine.key, 1)
    backend.release(ran(backend, picture(1)))
    assert engine.strikes == 1
    now[0] = 61.0
    backend.release(ran(backend, picture(1)))
    assert engine.strikes == 0
    backend.blame()
    assert engine.strikes == 1
    backend.close()
    assert engine.strikes == 1, "blamed is blamed"
    make(probation=Probation(cache, engine, lambda: now[0])).close()
    assert engine.strikes == 0


# --- alone


def test_the_sweep_tries_streams_and_batches(make: Make, device: Simulation) -> None:
    backend = make(streams=2)
    _raw.sweep(backend, [picture(1), picture(2)], 0.001)
    before = device.alive
    found = _raw.sweep(backend, [picture(1), picture(2)], 0.001)
    assert list(found.rates) == ["1x1", "2x1", "3x1", "1x4", "2x4", "3x4"]
    assert all(rate > 0 for rate in found.rates.values())
    assert found.profiles == {"1": "profile 1:1:4", "4": "profile 1:1:4"}
    assert device.alive == before
    assert len(backend._free) == backend.slots, "the lanes are given back"
    backend.close()


def test_the_sweep_says_which_profile_ran_a_batch(make: Make) -> None:
    found = _raw.sweep(make(single=True), [picture(1)], 0.001, streams=(2,), batches=(1, 4))
    assert (list(found.rates), found.profiles) == (["2x1", "2x4"], {"1": "profile 1:1:1", "4": "profile 1:1:4"})


def test_no_more_than_two_batches_wait_in_a_stream_of_the_sweep(make: Make, device: Simulation) -> None:
    backend = make(streams=1)
    slot = submitted(backend, picture(1))
    launch = _raw._Launch(Cuda(), slot, 1)
    for _ in range(5):
        launch()
        assert len(device.streams[slot.stream]) <= 2
    launch.close()


def test_a_sweep_does_not_wait_for_ever(make: Make, device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make(streams=1)
    launch = _raw._Launch(Cuda(), submitted(backend, picture(1)), 1)
    monkeypatch.setattr(PATIENCE, "deadline_s", lambda: 0.0)
    device.hold = True
    launch()
    launch()
    with pytest.raises(FatalError, match="has not finished a batch"):
        launch()


def test_a_sweep_without_graphs_says_where_tensorrt_fails(make: Make, device: Simulation) -> None:
    backend = make(streams=1)
    slot = submitted(backend, picture(1))
    launch = _raw._Launch(Cuda(), slot, 1)
    launch._graph = None
    launch()
    slot.network.context.trt.world.refusals.append("no")
    with pytest.raises(FatalError, match="TensorRT did not start a batch"):
        launch()


def test_without_cuda_there_is_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="there is no CUDA driver here"):
        Cuda()


def test_a_plan_with_parts_on_a_dla_is_run_whole_and_without_graphs(device: Simulation) -> None:
    kit = simulated.toolkit_on(device)
    kit.trt.world.dla_cores = 1
    plan = simulated.echo_plan(kit, core=0, least=4)
    backend = TensorRt(kit, plan, CARD, replace(SETTINGS, dla_core=0), None)
    backend.prepare(None)
    assert (backend.max_batch, backend.batches) == (4, [4])
    assert "no CUDA graphs" in backend.detail
    assert "cudaStreamBeginCapture" not in device.calls
    done = ran(backend, picture(1), picture(2))
    assert shows(done, picture(1), picture(2))
    backend.release(done)
    assert list(_raw.sweep(backend, [picture(1)], 0.001).rates) == ["1x4", "2x4", "3x4"]
    assert "cudaStreamBeginCapture" not in device.calls
    backend.close()
    assert device.alive == 0


@pytest.mark.parametrize("room", [2, 0])
def test_a_dla_without_room_for_more_contexts_runs_the_ones_that_it_has(device: Simulation, room: int) -> None:
    kit = simulated.toolkit_on(device)
    kit.trt.world.dla_cores = 1
    plan = simulated.echo_plan(kit, core=0, least=4, room=room)
    if not room:
        with pytest.raises(FatalError, match="can't create an execution context"):
            TensorRt(kit, plan, CARD, replace(SETTINGS, dla_core=0), None)
        return
    backend = TensorRt(kit, plan, CARD, replace(SETTINGS, dla_core=0), None)
    assert backend.slots == 2
    backend.close()


@pytest.mark.parametrize("graphs", [True, False])
def test_single_pictures_run_on_the_profile_for_them_and_batches_on_the_other(
    make: Make, device: Simulation, graphs: bool
) -> None:
    backend = make(single=True, graphs=graphs)
    for count in (1, 3, 1, 4, 2, 1):
        images = [picture(seed) for seed in range(count)]
        slot = ran(backend, *images)
        assert isinstance(slot, ContextSlot)
        assert [context.active_optimization_profile for context in contexts(slot)] == [0, 1], "each stays on its own"
        assert shows(slot, *images)
        backend.release(slot)
    backend.close()
    assert not device.alive


def contexts(slot: ContextSlot) -> list[Any]:
    return [slot.network.serving(rows) for rows in (4, 1)]


@pytest.mark.parametrize(("version", "strategy"), [("8.6.0", None), ("10.3.0", "ON_PROFILE_CHANGE")])
def test_a_context_takes_memory_for_its_own_profile_where_that_can_be(
    device: Simulation, version: str, strategy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = simulated.toolkit_on(device, version)
    asked = list[Any]()
    create = kit.trt.ICudaEngine.create_execution_context

    def noted(engine: Any, *how: Any) -> Any:
        asked.append(how)
        return create(engine, *how)

    monkeypatch.setattr(kit.trt.ICudaEngine, "create_execution_context", noted)
    TensorRt(kit, simulated.echo_plan(kit, single=True), CARD, SETTINGS, None).close()
    names = [tuple(kind.name for kind in how) for how in asked]
    number = SETTINGS.streams + 1
    assert names == [()] * number + [(strategy,) if strategy else ()] * number


def test_where_a_profile_serves_one_context_there_is_one_slot_with_both_profiles(make: Make) -> None:
    """TensorRT 8.5."""
    backend = make(single=True, contexts=1)
    assert backend.slots == 1
    for count in (1, 4, 1):
        images = [picture(seed) for seed in range(count)]
        slot = ran(backend, *images)
        assert shows(slot, *images)
        backend.release(slot)
    backend.close()


@pytest.mark.parametrize("lack", [{"stubborn": True}, {"room": 4}, "cudaStreamSynchronize"])
def test_where_there_is_no_context_for_single_pictures_they_run_as_batches_do(
    make: Make, device: Simulation, lack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the simulated engine's three lanes one would have had it: none takes memory for it then."""
    if isinstance(lack, str):
        device.fail[lack] = [0, 2]
    backend = make(single=True, **({} if isinstance(lack, str) else lack))
    assert (backend.slots, backend.profile_of(1)) == (3, "profile 1:1:4")
    assert caplog.text.count("they run on the profile for batches") == 1
    for count in (1, 4, 1):
        images = [picture(seed) for seed in range(count)]
        slot = ran(backend, *images)
        assert shows(slot, *images)
        assert {context.active_optimization_profile for context in contexts(cast("ContextSlot", slot))} == {0}
        backend.release(slot)
    backend.close()
    assert not device.alive


@pytest.mark.parametrize(
    ("profile", "runs"),
    [
        ([[1, 3, 8, 8]] * 3, True),
        ([[1, 3, 4, 4], [1, 3, 8, 8], [4, 3, 16, 16]], True),
        ([[1, 3, 16, 16], [1, 3, 16, 16], [1, 3, 32, 32]], False),
        ([[2, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]], False),
    ],
)
def test_a_second_profile_is_for_single_pictures_if_it_takes_one_of_that_size(
    make: Make, profile: list[list[int]], runs: bool
) -> None:
    """Of a plan that somebody else has built."""
    slot = ran(make(single=profile), picture(1))
    assert [context.active_optimization_profile for context in contexts(cast("ContextSlot", slot))] == [0, int(runs)]


def test_a_shape_that_tensorrt_does_not_take_is_an_error(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = simulated.toolkit_on(device)
    plan, settings = simulated.echo_plan(kit), replace(SETTINGS, graphs=False)
    backend = TensorRt(kit, plan, CARD, settings, None)
    backend.prepare(None)
    monkeypatch.setattr(kit.trt.IExecutionContext, "set_input_shape", lambda *_: False)
    with pytest.raises(FatalError, match="TensorRT did not take a batch of 1"):
        ran(backend, picture(1))
    with pytest.raises(FatalError, match="TensorRT takes no input of 4x3x8x8"):
        TensorRt(kit, plan, CARD, settings, None)


def test_no_smaller_batch_is_run_than_the_profile_takes(make: Make) -> None:
    backend = make(least=2, largest=4)
    assert backend.batches == [2, 4]
    assert make(least=3, largest=4, max_batch=1).batches == [3]
    assert shows(ran(backend, picture(1)), picture(1))


def test_a_warning_of_another_model_of_gpu_is_told_once_and_harms_nothing(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    _engine._tell_of_another_model.cache_clear()
    said = "Using an engine plan file across different models of devices is not recommended and is likely to affect"
    with caplog.at_level(logging.INFO, _engine.__name__):
        for backend in (make(), make()):
            logger = backend._engine._logger
            logger.log(logger.trt.ILogger.Severity.WARNING, said)
            assert shows(ran(backend, picture(1)), picture(1))
    assert [record.levelno for record in caplog.records if "another model" in record.message] == [logging.INFO]


@pytest.mark.slow
@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_a_backend_that_was_half_made_for_want_of_memory_leaves_none_behind(
    make: Make, device: Simulation, call: str
) -> None:
    """It is tried again and again, in the same process."""
    make(READS).close()
    before, allocations = len(device.memory), device.calls[call]
    for failing in range(allocations):
        device.fail[call] = [0] * failing + [2]
        with pytest.raises(OutOfMemoryError, match="the GPU has no memory left"):
            make(READS)
        gc.collect()
        device.fail.clear()
        assert len(device.memory) == before, failing
