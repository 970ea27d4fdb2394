"""What a CUDA status means for the process. One place judges, whatever library reports it."""

from __future__ import annotations

import re

from edgeinfer.errors import EdgeinferError, FatalError, StickyError

STICKY = frozenset({700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 720, 999})
"""After these the context is lost: CUDA's own text says that the process must be terminated and relaunched
(cudaError_t in the CUDA Runtime API: illegal address, launch timeout, destroyed context, assert, hardware stack error,
illegal instruction, misaligned address, invalid address space, invalid pc, launch failure, cooperative launch too
large, unknown)."""

_IN_TEXT = re.compile(r"(?i)\bCUDA (?:failure|error|driver error)[ :]+(\d{1,4})\b")


def is_sticky(status: int) -> bool:
    """Whether this process can't use its GPU any more."""
    return status in STICKY


def error_of(call: str, status: int, name: str) -> EdgeinferError:
    """The error for a failed call: StickyError where the process must end at once, else FatalError."""
    kind = StickyError if is_sticky(status) else FatalError
    return kind(f"{call}: CUDA error {status} ({name})", "see edgeinfer doctor")


def status_in(text: str) -> int | None:
    """The CUDA status in a library's message, as ONNX Runtime ("CUDA failure 700: …") and TensorRT write it."""
    found = _IN_TEXT.search(text)
    return int(found[1]) if found else None


def error_from_text(text: str) -> EdgeinferError:
    """The error for what a library says went wrong."""
    status = status_in(text)
    return StickyError(text) if status is not None and is_sticky(status) else FatalError(text)
