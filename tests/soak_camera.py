"""A V4L2 camera for the soak: the source plugin itself, with a stand-in for OpenCV's capture class.

`tests.soak_camera:///path/to/link`: pictures come while the node that the link pointed to at opening is still there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeinfer.interfaces import Source
from edgeinfer.sources import v4l2
from edgeinfer.sources.v4l2 import Options

__all__ = ["RECONNECT", "Options", "open"]

RECONNECT = True
PERIOD_S = 0.1


class Node:
    """What OpenCV gives for an open device."""

    def __init__(self, device: str, api: int) -> None:
        self._node = Path(device).resolve()

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self._node.exists()

    def set(self, prop: int, value: float) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 0.0 if prop == cv2.CAP_PROP_POS_MSEC else 1 / PERIOD_S

    def read(self, image: Any = None) -> tuple[bool, Any]:
        time.sleep(PERIOD_S)
        return (True, np.full((90, 160, 3), 128, np.uint8)) if self._node.exists() else (False, None)

    def release(self) -> None:
        pass


def open(uri: str, options: Options) -> Source:  # noqa: A001 (the plugin interface)
    """The camera."""
    opener: Any = Node
    return v4l2.open(f"v4l2://{uri.partition('://')[2]}", options, opener)
