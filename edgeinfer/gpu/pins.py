"""Frames that the GPU may read where their source wrote them."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import numpy.typing as npt

from edgeinfer.frames import Block, block_of
from edgeinfer.gpu.cuda import Cuda

_pinned: dict[int, tuple[Block, int]] = {}
"""The pool's blocks that have been tried, by identity, with their addresses; 0 where CUDA refused.

Of the process: memory can be pinned once, and a backend that takes over from another finds it so."""
_lock = threading.Lock()


class Pins:
    """Pins the frame pool's blocks as they turn up, each once, until the pool gives them back to the system."""

    def __init__(self, cuda: Cuda, mapped: bool) -> None:
        self._cuda = cuda
        self._mapped = mapped

    def address(self, memory: npt.NDArray[np.uint8]) -> int:
        """Where the device reads an image or a surface's block, for a copy or (`mapped`) from a kernel; 0: it can't."""
        block = block_of(memory)
        if block is None:
            return 0
        _, address = _pinned.get(id(block)) or self._pin(block)
        return address if memory.flags.c_contiguous and _begins(memory, block) else 0

    def _pin(self, block: Block) -> tuple[Block, int]:
        with _lock:
            if id(block) not in _pinned:
                _pinned[id(block)] = block, self._registered(block)
                block.on_discard.append(partial(self._unpin, block))
            return _pinned[id(block)]

    def _registered(self, block: Block) -> int:
        flags = self._cuda.api.cudaHostRegisterMapped
        if not self._cuda.attempt("cudaHostRegister", block.address, len(block), flags):
            return 0
        return int(self._cuda("cudaHostGetDevicePointer", block.address, 0)) if self._mapped else block.address

    def _unpin(self, block: Block) -> None:
        """From the pool, of a block that nobody uses."""
        _, address = _pinned.pop(id(block))
        if address:
            self._cuda.attempt("cudaHostUnregister", block.address)


def _begins(memory: npt.NDArray[np.uint8], block: Block) -> bool:
    """Whether what has no gaps lies at the block's beginning: as all of it does. To ask for an address takes long."""
    return memory.nbytes == len(block) or memory.ctypes.data == block.address
