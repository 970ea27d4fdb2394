"""The frame pool: memory comes back when nobody refers to it, and never before."""

from __future__ import annotations

import errno
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer import frames
from edgeinfer.errors import InputError, StalledError
from edgeinfer.frames import Block, FramePool, Store, block_of
from edgeinfer.gpu.pins import Pins
from edgeinfer.guard.limits import MAX_FRAME_BYTES
from edgeinfer.guard.memory import total_bytes
from edgeinfer.types import Image

SIZE = 4 * 5 * 3


def block(image: Image) -> Block:
    found = block_of(image)
    assert found is not None
    return found


def test_an_image_is_writable_whole_and_starts_where_its_block_does() -> None:
    image = FramePool(Store()).empty(4, 5)
    assert image.shape == (4, 5, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert image.ctypes.data == block(image).address
    assert image.ctypes.data % 4096 == 0, "a GPU can pin whole pages only"


@pytest.mark.slow
def test_memory_is_lent_again_once_the_last_view_is_gone() -> None:
    pool = FramePool(Store())
    image = pool.empty(4, 5)
    first, view = block(image), image[1:, :, 0]
    del image
    gc.collect()
    other = pool.empty(4, 5)
    assert block(other) is not first
    del view
    gc.collect()
    assert block(pool.empty(4, 5)) is first


def test_beyond_its_limit_a_frame_waits_for_another_to_go() -> None:
    pool = FramePool(Store(limit=2 * SIZE))
    images = [pool.empty(4, 5), pool.empty(4, 5)]
    with ThreadPoolExecutor(1) as other:
        third = other.submit(pool.empty, 4, 5)
        with pytest.raises(NotYet):
            third.result(0.05)
        del images[0]
        assert third.result(10).shape == (4, 5, 3)


def test_where_nobody_lets_go_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PATIENCE_S", 0.01)
    pool = FramePool(Store(limit=SIZE))
    kept = pool.empty(4, 5)
    with pytest.raises(StalledError, match="no room"):
        pool.empty(4, 5)
    assert kept.shape == (4, 5, 3)


def test_beyond_a_bound_memory_that_serves_no_frame_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_IDLE_FRAME_BYTES", 2 * SIZE)
    store = Store(limit=10 * SIZE)
    pool = FramePool(store)
    images = [pool.empty(4, 5) for _ in range(5)]
    assert store.held == 5 * SIZE
    images.clear()
    assert store.held == 2 * SIZE


def test_a_frame_that_there_can_never_be_room_for() -> None:
    with pytest.raises(InputError, match="than all frames may hold"):
        FramePool(Store(limit=SIZE - 1)).empty(4, 5)


def test_frames_have_a_part_of_the_memory_only() -> None:
    assert 0 < Store().limit <= min(MAX_FRAME_BYTES, total_bytes() // frames.SHARE)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_memory_that_could_not_be_had_is_not_counted(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(frames, "PATIENCE_S", 0.01)
    store = Store(limit=2 * SIZE)
    with monkeypatch.context() as short:
        short.setattr(Block, "shared", fail)
        short.setattr(Block, "new", fail)
        for attempt in (store.lend, store.take, store.lend):
            with pytest.raises(StalledError, match="no room"):
                attempt(SIZE)
    assert store.held == 0
    assert len(store.take(SIZE)) == SIZE


def test_what_is_lent_to_another_process_counts_and_is_given_to_nobody_else() -> None:
    store = Store(limit=2 * SIZE)
    block, descriptor = store.lend(SIZE)
    theirs = Block.of(descriptor, SIZE)
    with pytest.raises(OSError, match="not permitted"):  # or reading it would end this process
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
    theirs[:3] = b"abc"
    assert block[:3] == b"abc"
    assert store.held == SIZE
    store.returned.append(block)
    assert store.held == 0
    assert store.take(SIZE) is not block


@pytest.mark.slow
def test_a_block_nobody_uses_makes_room_for_another_size_and_whoever_pinned_it_is_told() -> None:
    pool, told = FramePool(Store(limit=SIZE)), list[str]()
    image = pool.empty(4, 5)
    block(image).on_discard.append(lambda: told.append("unpin"))
    del image
    gc.collect()
    assert block_of(pool.empty(2, 5)) is not None
    assert told == ["unpin"]


def test_a_copy_is_one_and_lies_in_the_pool() -> None:
    pool, source = FramePool(Store()), np.arange(SIZE, dtype=np.uint8).reshape(4, 5, 3)
    copied = pool.copy(source)
    assert (copied == source).all()
    assert block_of(copied) is not None
    copied[:] = 0
    assert source.any()


@pytest.mark.slow
def test_what_is_freed_makes_room_in_the_limit() -> None:
    pool = FramePool(Store(limit=SIZE))
    for height in (4, 2, 4, 1, 2):
        image = pool.empty(height, 5)
        assert block_of(image) is not None, "memory that nobody uses was kept"
        del image
        gc.collect()


def test_memory_from_elsewhere_has_no_block() -> None:
    assert block_of(np.zeros((4, 5, 3), np.uint8)) is None
    assert block_of(np.frombuffer(bytes(SIZE), np.uint8).reshape(4, 5, 3)) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), max_size=60))
def test_no_two_living_images_share_memory(steps: list[tuple[int, int]]) -> None:
    """Images are written, kept and dropped in any order; each that is kept holds what was written to it."""
    pool, living = FramePool(Store(limit=8 * SIZE)), dict[int, tuple[Image, int]]()
    for place, value in steps:
        living.pop(place, None)
        image = pool.empty(4, 5)
        image[:] = value
        living[place] = image, value
        assert all((kept == wanted).all() for kept, wanted in living.values())


class FakeCuda:
    """What pinning asks of CUDA; refuses to pin twice, as CUDA does (712)."""

    class api:  # noqa: N801 (the attribute's name)
        cudaHostRegisterMapped = 2  # noqa: N815 (CUDA's name)

    def __init__(self) -> None:
        self.registered: set[int] = set()

    def attempt(self, name: str, address: int, *_: int) -> bool:
        if name == "cudaHostUnregister":
            self.registered.remove(address)
        elif address in self.registered:
            return False
        self.registered.add(address) if name == "cudaHostRegister" else None
        return True


@pytest.mark.slow
def test_memory_is_pinned_once_for_all_backends_and_let_go_before_it_is_freed() -> None:
    cuda: Any = FakeCuda()
    pool = FramePool(Store(limit=SIZE))
    image = pool.empty(4, 5)
    first, second = Pins(cuda, mapped=False), Pins(cuda, mapped=False)
    assert first.address(image) == second.address(image) == image.ctypes.data
    assert first.address(image[1:]) == 0, "a part of a frame is copied"
    assert first.address(np.zeros((4, 5, 3), np.uint8)) == 0
    assert len(cuda.registered) == 1
    del image
    gc.collect()
    other = pool.empty(2, 5)
    assert not cuda.registered
    assert first.address(other) == other.ctypes.data
