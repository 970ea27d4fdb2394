"""The GPU's memory that another process writes pictures into, and what it may say of them; on a simulated GPU."""

from __future__ import annotations

import ctypes
import gc
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.errors import CameraError, EdgeinferError, OutOfMemoryError
from edgeinfer.gpu import cuda as cuda_module
from edgeinfer.gpu import surfaces
from edgeinfer.gpu.arena import PAGE, Arena, Arenas
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.leases import Lease, lease, supplied
from edgeinfer.gpu.surfaces import DeviceSurface
from edgeinfer.guard.limits import MAX_FILE_SLOTS, MAX_SLOTS, MAX_SOURCE_DEVICE_BYTES
from edgeinfer.interfaces import NoRoom, UnreadableItem
from edgeinfer.isolation import slots as slots_module
from edgeinfer.isolation.slots import Slots
from edgeinfer.isolation.source import IsolatedSource
from edgeinfer.isolation.talk import Nonsense
from edgeinfer.pictures.host import HostSurface, Shape
from edgeinfer.types import Colour
from tests.gpu import simulated
from tests.gpu.simulated import Simulation
from tests.test_isolation import ANSWERS, Liar

SIZE = 8 * 6 * 3 // 2
PICTURE = {
    "picture": {
        "kind": "device",
        "slot": 0,
        "layout": "nv12",
        "width": 8,
        "height": 6,
        "matrix": "bt601",
        "full_range": False,
    },
    "t_ns": 1,
    "t_mono_ns": 1,
    "clock": "file",
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    found = simulated.install(monkeypatch)
    surfaces.downloads.cache_clear()
    monkeypatch.setattr(cuda_module, "_used", [True])
    return found


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> Arenas:
    own = Arenas(64 << 20)
    monkeypatch.setattr(slots_module, "arenas", own)
    return own


def test_an_arena_takes_whole_pages_and_is_freed_when_nobody_uses_it_here_or_there(
    device: Simulation, arenas: Arenas
) -> None:
    there = [True]
    arena = arenas.make(Cuda(), 1000, 16)
    assert (arena.slots, arena.slot_bytes, arena.size) == (MAX_SLOTS, 1024, PAGE)
    assert (len(arena.handle), arenas.held, len(device.memory)) == (64, PAGE, 1)
    first, second = arena.lease(0), arena.lease(5)
    assert second.address == first.address + 5 * 1024
    arena.close(lambda: not there[0])
    del first
    assert arenas.held == PAGE, "one picture is in use"
    del second
    assert arenas.held == PAGE, "the process has it mapped"
    there[0] = False
    assert (arenas.held, len(device.memory)) == (0, 0)


def test_a_slot_that_was_let_go_by_another_thread_may_be_written_again(device: Simulation, arenas: Arenas) -> None:
    arena = arenas.make(Cuda(), 1000, 16)
    held = [arena.lease(number) for number in range(MAX_SLOTS)]
    assert not arena.has_room
    with pytest.raises(KeyError):
        arena.lease(3)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert sorted(arena.freed()) == list(range(MAX_SLOTS))
    assert arena.has_room


def test_beyond_its_limit_there_is_no_further_arena(device: Simulation) -> None:
    own = Arenas(4 * PAGE)
    first = own.make(Cuda(), PAGE, 16)
    assert (first.slots, first.size) == (3, 3 * PAGE), "as many as there must be"
    assert own.make(Cuda(), 1000, 16).size == PAGE
    with pytest.raises(OutOfMemoryError, match="find no room: 8 MiB are theirs already"):
        own.make(Cuda(), 1000, 16)
    first.close(lambda: True)
    assert own.make(Cuda(), 1000, 64).slots == 64


def test_each_leaves_room_for_others(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cuda, "__call__", lambda self, name, *given: 0 if name == "cudaMalloc" else None)
    monkeypatch.setattr(Cuda, "export", lambda self, address: b"")
    own = Arenas(4 << 30)
    files = [own.make(Cuda(), 1920 * 1080 * 3 // 2, MAX_FILE_SLOTS).slots for _ in range(64)]
    assert files[0] > 2 * MAX_SLOTS
    assert files == sorted(files, reverse=True)
    assert files[-1] > 3


def test_a_source_gets_fewer_slots_for_larger_pictures(device: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(Arena, "__init__", lambda self, *given: made.append(given[-1]))
    own = Arenas(1 << 40)
    for size in (1000, MAX_SOURCE_DEVICE_BYTES // 8, MAX_SOURCE_DEVICE_BYTES // 4):
        own.make(Cuda(), size, MAX_SLOTS)
    assert made == [MAX_SLOTS, 8, 4]
    with pytest.raises(OutOfMemoryError):
        own.make(Cuda(), MAX_SOURCE_DEVICE_BYTES // 2, MAX_SLOTS)


def test_what_can_not_be_shared_takes_nothing(device: Simulation, arenas: Arenas) -> None:
    device.fail["cudaIpcGetMemHandle"] = [801]
    with pytest.raises(EdgeinferError, match="801"):
        arenas.make(Cuda(), 1000, 16)
    assert (arenas.held, len(device.memory)) == (0, 0)


def test_a_thread_that_nobody_supplies_gets_none() -> None:
    class Supply:
        def take(self, size: int) -> Lease:
            return Lease(size, 0, lambda _: None)

    with supplied(Supply()):
        found = lease(7)
        assert found is not None
        assert found.address == 7
    assert lease(7) is None


@pytest.mark.parametrize("shape", [Shape("nv12", 8, 6), Shape("nv12", 7, 5), Shape("p010", 8, 6), Shape("i420", 9, 7)])
def test_a_surface_on_the_gpu_is_as_one_in_host_memory(device: Simulation, shape: Shape) -> None:
    colour = Colour("bt709", True)
    memory = np.random.default_rng(0).integers(0, 256, shape.size, np.uint8)
    address = int(Cuda()("cudaMalloc", shape.size))
    ctypes.memmove(address, memory.ctypes.data, shape.size)
    surface = DeviceSurface(Lease(address, 0, lambda _: None), shape, colour)
    host = HostSurface(memory, shape, colour)
    assert surface.planes == shape.planes(address)
    assert (surface.width, surface.height, surface.on_device) == (shape.width, shape.height, True)
    np.testing.assert_array_equal(surface.image(), host.image())
    for grid in (1, 3, 64):
        assert surface.sample(grid) == host.sample(grid)
    downloads = device.calls["cudaMemcpyAsync"]
    assert surface.image() is surface.image()
    assert device.calls["cudaMemcpyAsync"] == downloads, "it comes to the host once"


# --- what a process says


def lent(liar: Liar) -> IsolatedSource:
    return IsolatedSource(liar, {}, "cam", lambda _: 20, slots=Slots(lambda: True))


def test_a_picture_in_a_slot_is_read_where_it_lies(device: Simulation, arenas: Arenas) -> None:
    source = lent(Liar({"arena": SIZE}, PICTURE, {**PICTURE, "picture": {**PICTURE["picture"], "slot": 3}}))  # type: ignore[dict-item]
    first = source.read()
    assert first is not None
    assert isinstance(first.picture, DeviceSurface)
    (address,) = device.memory
    assert first.picture.planes.luma == address
    second = source.read()
    assert second is not None
    assert isinstance(second.picture, DeviceSurface)
    assert second.picture.planes.luma == address + 3 * 512
    source.close()
    assert arenas.held == PAGE
    del first, second
    assert arenas.held == 0


@pytest.mark.parametrize(
    "change",
    [
        {"slot": MAX_SLOTS},
        {"slot": -1},
        {"slot": True},
        {"slot": None},
        {"width": 0},
        {"width": 100},
        {"height": 1 << 27},
        {"layout": "bgr"},
        {"layout": ["nv12"]},
        {"matrix": "bt470"},
        {"full_range": 1},
        {"kind": "nothing"},
    ],
)
def test_a_picture_that_fits_into_no_slot_is_nonsense(
    device: Simulation, arenas: Arenas, change: dict[str, Any]
) -> None:
    liar = Liar({"arena": SIZE}, {**PICTURE, "picture": {**PICTURE["picture"], **change}})  # type: ignore[dict-item]
    source = lent(liar)
    with pytest.raises(CameraError) as caught:
        source.read()
    assert caught.value.code == "crashed"
    assert (liar.ended, arenas.held) == (1, 0)


def test_a_slot_that_we_read_is_not_the_processs_to_give(device: Simulation, arenas: Arenas) -> None:
    source = lent(Liar({"arena": SIZE}, PICTURE, PICTURE))
    first = source.read()
    with pytest.raises(CameraError) as caught:
        source.read()
    assert first is not None
    assert caught.value.code == "crashed"


def test_a_process_of_its_own_is_lent_none(device: Simulation, arenas: Arenas) -> None:
    source = IsolatedSource(Liar({"arena": SIZE}), {}, "cam", lambda _: 20)
    with pytest.raises(CameraError):
        source.read()
    assert arenas.held == 0


@pytest.mark.parametrize("size", [0, -1, 1 << 40, "8", None, 1.5])
def test_an_absurd_size_is_nonsense(device: Simulation, arenas: Arenas, size: object) -> None:
    with pytest.raises(Nonsense):
        Slots(lambda: True).lend(size, True)


def test_memory_in_place_of_other_memory_does_not_disturb_the_talk(device: Simulation, arenas: Arenas) -> None:
    asked: list[bool] = []

    def unmapped() -> bool:
        asked.append(True)
        return True

    slots = Slots(unmapped)
    slots.lend(SIZE, True)
    first = slots.surface(PICTURE["picture"])  # type: ignore[arg-type]
    slots.lend(4 * PAGE, True)
    assert (arenas.held, asked) == (13 * PAGE, []), "a picture of the first is in use"
    del first
    assert (arenas.held, asked) == (12 * PAGE, [])
    slots.close()
    assert (arenas.held, asked) == (0, [True])


def test_where_the_gpu_is_not_used_so_far_it_is_not_touched(
    device: Simulation, arenas: Arenas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_module, "_used", [])
    assert Slots(lambda: True).lend(SIZE, True) == {"refused": slots_module.NOT_YET}
    assert not device.calls


def test_where_its_memory_can_not_be_shared_the_process_is_told(device: Simulation, arenas: Arenas) -> None:
    device.fail["cudaIpcGetMemHandle"] = [801]
    answer = Slots(lambda: True).lend(SIZE, True)
    assert "801" in answer["refused"]
    assert arenas.held == 0


def test_without_room_the_process_is_not_asked(device: Simulation, arenas: Arenas) -> None:
    answers = [{**PICTURE, "picture": {**PICTURE["picture"], "slot": slot}} for slot in range(MAX_SLOTS)]  # type: ignore[dict-item]
    source = lent(Liar({"arena": SIZE}, *answers, PICTURE))
    kept = [source.read() for _ in range(MAX_SLOTS)]
    for _ in range(3):
        with pytest.raises(NoRoom, match="16 of its pictures are in use"):
            source.read()
    del kept[0]
    assert source.read() is not None
    source.close()


@given(st.lists(st.one_of(ANSWERS, st.just({"arena": SIZE}), st.just(PICTURE)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_says_the_error_is_one_of_a_source(
    device: Simulation, arenas: Arenas, answers: list[dict[str, Any] | bytes]
) -> None:
    source = lent(Liar(*answers))
    try:
        for _ in answers:
            source.read()
    except (EdgeinferError, UnreadableItem, NoRoom):
        pass
    source.close()
    assert arenas.held == 0
