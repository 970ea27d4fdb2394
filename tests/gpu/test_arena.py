"""The GPU's memory for decoded pictures; on a simulated GPU."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import EdgeinferError, FatalError, OutOfMemoryError
from edgeinfer.gpu.arena import ALIGNMENT, LEAST_SLOTS, Arenas, Lease
from edgeinfer.guard.limits import MAX_FILE_SLOTS, MAX_SOURCE_DEVICE_BYTES


class Gpu:
    """What an arena asks of CUDA."""

    def __init__(self, total: int = 1 << 34) -> None:
        self.total, self.held = total, dict[int, int]()
        self.fails: EdgeinferError | None = None

    def __call__(self, name: str, argument: int) -> int:
        if self.fails is not None:
            raise self.fails
        if name == "cudaEventDestroy":
            return 0
        if name == "cudaFree":
            del self.held[argument]
            return 0
        address = 1 << 20 if not self.held else max(self.held) + max(self.held.values())
        self.held[address] = argument
        return address

    def event(self) -> int:
        return 1

    def memory(self) -> tuple[int, int]:
        return self.total, self.total


@pytest.fixture
def gpu() -> Any:
    return Gpu()


def test_a_slot_goes_round_and_no_two_are_the_same(gpu: Any) -> None:
    arena = Arenas().make(gpu, 1000, 8)
    leases = [arena.take() for _ in range(8)]
    addresses = [lease.address for lease in leases if lease is not None]
    assert len(set(addresses)) == 8
    assert all((address - arena.address) % ALIGNMENT == 0 for address in addresses)
    assert not arena.has_room
    assert arena.take() is None
    given_back = addresses[3]
    leases[3] = None
    assert arena.has_room
    again = arena.take()
    assert again is not None
    assert again.address == given_back


def test_a_lease_may_be_let_go_in_any_thread(gpu: Any) -> None:
    arena = Arenas().make(gpu, 10, 4)
    kept: list[Lease | None] = [arena.take() for _ in range(4)]
    threads = [threading.Thread(target=kept.pop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(arena.take() is not None for _ in range(4)) <= 4
    assert arena.let_go is not None


@pytest.mark.slow
def test_a_closed_arena_is_freed_with_its_last_picture(gpu: Any) -> None:
    arenas = Arenas()
    arena = arenas.make(gpu, 1000, 4)
    one, other = arena.take(), arena.take()
    arena.close()
    assert arenas.held == arena.size
    del one
    arenas.settle()
    assert gpu.held
    del other
    gc.collect()
    arenas.settle()
    assert not gpu.held
    assert arenas.held == 0


@given(st.integers(1, 1 << 27), st.integers(LEAST_SLOTS, MAX_FILE_SLOTS))
def test_a_source_gets_fewer_slots_for_larger_pictures(size: int, wanted: int) -> None:
    gpu: Any = Gpu()
    arena = Arenas().make(gpu, size, wanted)
    assert LEAST_SLOTS <= arena.slots <= wanted
    assert arena.slots * arena.slot_bytes <= MAX_SOURCE_DEVICE_BYTES
    assert arena.slot_bytes >= size


def test_beyond_its_limit_there_is_no_further_arena(gpu: Any) -> None:
    arenas = Arenas(100 * ALIGNMENT)
    made = [arenas.make(gpu, ALIGNMENT, 64) for _ in range(30)]
    made += [arenas.make(gpu, ALIGNMENT, 64) for _ in range(3)]
    with pytest.raises(OutOfMemoryError, match="find no room"):
        arenas.make(gpu, ALIGNMENT, 64)
    assert arenas.held <= 100 * ALIGNMENT
    for arena in made:
        arena.close()
    assert arenas.held == 0
    assert arenas.make(gpu, ALIGNMENT, 3).slots == 3


def test_what_could_not_be_made_is_not_counted(gpu: Any) -> None:
    arenas = Arenas()
    gpu.fails = OutOfMemoryError("out of memory")
    with pytest.raises(OutOfMemoryError):
        arenas.make(gpu, 1000, 4)
    assert arenas.held == 0


def test_after_a_cuda_error_closing_is_quiet(gpu: Any) -> None:
    arenas = Arenas()
    arena = arenas.make(gpu, 1000, 4)
    gpu.fails = FatalError("the GPU is lost")
    arena.close()
    assert arenas.held == 0
