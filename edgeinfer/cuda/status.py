"""What a CUDA status means for the process. One place judges, whatever library reports it."""

from __future__ import annotations

import re
from typing import Any

from edgeinfer.errors import EdgeinferError, FatalError, OutOfMemoryError, StickyError, UnavailableError
from edgeinfer.guard.foreign_words import TENSORRT_NO_MEMORY, tells_of_no_memory

STICKY = frozenset({700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720, 999})
"""After these the context is lost: CUDA's own text says that the process must be terminated and relaunched
(cudaError_t in the CUDA Runtime API: illegal address, launch timeout, destroyed context, assert, hardware stack error,
illegal instruction, misaligned address, invalid address space, invalid pc, launch failure, cooperative launch too
large, unknown)."""

OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation: the context is as good as before."""

MORE_MEMORY = "end what else uses it; a Jetson's GPU and its programs share one memory: see free -m"

ABSENT = frozenset({3, 34, 35, 46, 100, 101, 802, 803, 804})
"""No GPU that can be used: none there, taken by somebody else, or a driver that doesn't fit."""

_IN_TEXT = re.compile(r"(?i)\bCUDA (?:failure|error|driver error)[ :]+(\d{1,4})\b")


def check(call: str, status: Any) -> None:
    """Raises the error of a call that has failed; nothing happens for a status of 0. See `error_of`.

    `status` is a number, or a member of cuda-python's enums.
    """
    if int(status):
        raise error_of(call, int(status), str(getattr(status, "name", status)))


def is_sticky(status: int) -> bool:
    """Whether this process can't use its GPU any more."""
    return status in STICKY


def error_of(call: str, status: int, name: str) -> EdgeinferError:
    """The error for a failed call: StickyError where the process must end at once, OutOfMemoryError, UnavailableError
    where there is no GPU to work on, and FatalError for all others.
    """
    if status == OUT_OF_MEMORY:
        return OutOfMemoryError(f"the GPU has no memory left: {call}: CUDA error {status} ({name})", MORE_MEMORY)
    return _kind(status)(f"{call}: CUDA error {status} ({name})", "see edgeinfer doctor")


def status_in(text: str) -> int | None:
    """The CUDA status in a library's message, as ONNX Runtime ("CUDA failure 700: …") and TensorRT write it."""
    found = _IN_TEXT.search(text)
    return int(found[1]) if found else None


def error_from_text(text: str, reason: str | None = None) -> EdgeinferError:
    """The error for what a library says went wrong. A status in it counts for more than its words.

    `reason`: the part of the text that is judged, without a network's own names; all of it by default.
    """
    reason = text if reason is None else reason
    status = status_in(reason)
    if status is None and (tells_of_no_memory(reason) or TENSORRT_NO_MEMORY.match(reason)):
        status = OUT_OF_MEMORY
    return _kind(status or 0)(text)


def _kind(status: int) -> type[EdgeinferError]:
    if is_sticky(status):
        return StickyError
    if status in ABSENT:
        return UnavailableError
    return OutOfMemoryError if status == OUT_OF_MEMORY else FatalError
