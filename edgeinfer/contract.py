"""What a source must hand over, checked where it comes in: a plugin's mistake ends that source and nobody else's."""

from __future__ import annotations

import numpy as np

from edgeinfer.types import Capture, Surface

_UINT8 = np.dtype(np.uint8)
_surfaces: set[type] = set()
"""The types that have shown a surface's members."""


def breach(capture: Capture) -> str:
    """How a capture breaks the contract of `Source.read`, in a few words; empty for a sound one.

    What passes can be preprocessed, timed and published without another look. Costs about half a microsecond.
    """
    if not isinstance(capture, Capture):
        return f"a {type(capture).__name__} is no Capture"
    return _of_picture(capture.picture) or _of_times(capture)


def _of_picture(image: object) -> str:
    if not isinstance(image, np.ndarray):
        return "" if _is_surface(image) else f"its image is a {type(image).__name__}, not an array"
    if image.dtype != _UINT8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        return f"its image is {image.dtype} of shape {image.shape}"
    return "" if image.flags.c_contiguous else "its image is not C-contiguous"


def _is_surface(picture: object) -> bool:
    """To look for the members takes some 15 µs, so that it is done once for a type."""
    kind = type(picture)
    if kind not in _surfaces and isinstance(picture, Surface):
        _surfaces.add(kind)
    return kind in _surfaces


def _of_times(capture: Capture) -> str:
    if not isinstance(capture.t_ns, int) or not isinstance(capture.t_mono_ns, int):
        return "its times are no integers"
    if capture.t_media_ns is not None and not isinstance(capture.t_media_ns, int):
        return "its place in the medium is no integer"
    return ""
