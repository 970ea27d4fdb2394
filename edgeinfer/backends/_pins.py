"""Frames that the GPU may read where their source wrote them."""

from __future__ import annotations

from functools import partial

from edgeinfer.backends._cuda import Cuda
from edgeinfer.frames import Block, block_of
from edgeinfer.types import Image


class Pins:
    """Pins the frame pool's blocks as they turn up, each once. One thread uses it; any may discard a block."""

    def __init__(self, cuda: Cuda, mapped: bool) -> None:
        self._cuda = cuda
        self._mapped = mapped
        self._addresses: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}

    def address(self, image: Image) -> int:
        """Where the device reads the image, for a copy or (`mapped`) from a kernel; 0 where it can't."""
        block = block_of(image)
        if block is None:
            return 0
        if id(block) not in self._addresses:
            self._pin(block)
        whole = image.flags.c_contiguous and image.ctypes.data == block.address
        return self._addresses[id(block)] if whole else 0

    def close(self) -> None:
        """Lets all blocks go. Nothing of them may be in use by the device."""
        for block in list(self._blocks.values()):
            self._unpin(block)

    def _pin(self, block: Block) -> None:
        address = block.address
        if not self._cuda.attempt("cudaHostRegister", address, len(block), self._cuda.api.cudaHostRegisterMapped):
            self._addresses[id(block)] = 0
            return
        self._blocks[id(block)] = block
        self._addresses[id(block)] = (
            int(self._cuda("cudaHostGetDevicePointer", address, 0)) if self._mapped else address
        )
        block.on_discard.append(partial(self._unpin, block))

    def _unpin(self, block: Block) -> None:
        if self._blocks.pop(id(block), None) is not None:
            self._addresses.pop(id(block), None)
            block.on_discard.clear()
            self._cuda.attempt("cudaHostUnregister", block.address)
