"""Which messages a subscriber takes: whoever answers at the endpoint may be no daemon of ours.

The schema says which fields there are. What is asked here is whether their values can be true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from edgeinfer.guard.limits import MAX_DETECTIONS, MAX_MESSAGE_BYTES, MAX_PIXELS, MAX_TEXT
from edgeinfer.messages import DAEMON, SOURCE_PATTERN, Detection, DetectionsMessage, Message, decode

MAX_INT = 1 << 63
EDGE = 1.0
"""So far beyond its frame a box may end, in pixels: a rounding, and no more."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def accept(payload: bytes) -> Message:
    """The message in a payload. Raises msgspec.MsgspecError or UnicodeDecodeError where it is none or can't be true."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise msgspec.ValidationError(f"{len(payload)} bytes, and {MAX_MESSAGE_BYTES} are the limit")
    message = decode(payload)
    if message.source != DAEMON and not re.fullmatch(SOURCE_PATTERN, message.source):
        raise msgspec.ValidationError("no name of a source")
    if isinstance(message, DetectionsMessage):
        _check_scene(message)
    else:
        _check(message)
    return message


def _check_scene(message: DetectionsMessage) -> None:
    width, height = message.width, message.height
    if width * height > MAX_PIXELS:
        raise msgspec.ValidationError(f"a frame of {width} × {height}")
    if len(message.detections) > MAX_DETECTIONS:
        raise msgspec.ValidationError(f"{len(message.detections)} objects in one frame")
    right, bottom = width + EDGE, height + EDGE
    for found in message.detections:
        x1, y1, x2, y2 = found.box
        if not (-EDGE <= x1 <= x2 <= right and -EDGE <= y1 <= y2 <= bottom):  # NaN is neither
            raise msgspec.ValidationError(f"a box that is none in a frame of {width} × {height}: {found.box}")
        if found.class_id >= MAX_INT or not found.score <= 1.0:
            raise msgspec.ValidationError(f"class {found.class_id} with score {found.score}")
    _check({found.label for found in message.detections})
    _check([value for found in message.detections for value in _reserved(found) if value is not UNSET])
    _check([getattr(message, name) for name in message.__struct_fields__ if name != "detections"])


def _reserved(found: Detection) -> tuple[Any, ...]:
    return found.track_id, found.keypoints, found.angle


def _check(value: Any) -> None:
    """Looks at everything that a message holds."""
    fault = _fault(value)
    if fault:
        raise msgspec.ValidationError(fault)
    for item in _items(value):
        _check(item)


def _fault(value: Any) -> str:
    """What is wrong with a text or a number."""
    if isinstance(value, str):
        wrong = len(value) > MAX_TEXT or _CONTROLS.search(value)
        return "a text that is too long, or has control characters" if wrong else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value}, where a number should be"
    return "a number of more than 64 bits" if isinstance(value, int) and not -MAX_INT <= value < MAX_INT else ""


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, (list, tuple, set)) else ()
