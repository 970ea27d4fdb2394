"""USB and other V4L2 cameras, through OpenCV.

What the driver says of a node tells why one can't be used. A path under /dev/v4l/by-id or by-path is a link that udev
keeps: it is followed anew at every opening, so that a camera that is plugged in again comes back under whatever number
it gets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
from msgspec import Meta, Struct

from edgeinfer.config.paths import exists
from edgeinfer.errors import CameraError, StalledError
from edgeinfer.sources import _v4l2_node
from edgeinfer.sources._clock import stamped
from edgeinfer.sources._jpeg import Jpegs
from edgeinfer.sources._opencv import Frames
from edgeinfer.sources._v4l2_node import Ioctl, Node
from edgeinfer.types import Capture, Picture

RECONNECT = True
READ_DEADLINE_S = 2
DEV = Path("/dev")
# OpenCV's V4L2 code waits ten seconds for a frame unless told otherwise, and takes the number from here alone, once.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(READ_DEADLINE_S))

Pixels = Annotated[int, Meta(ge=1, le=16384)]


class Options(Struct, frozen=True, kw_only=True):
    """What to ask the camera for; without an answer it keeps its default. MJPG carries the most over USB."""

    width: Pixels | None = None
    height: Pixels | None = None
    fps: Annotated[float, Meta(gt=0, le=1000)] | None = None
    fourcc: Annotated[str, Meta(pattern=r"^[A-Z0-9]{4}$(?!\n)")] | None = None


Opener = Callable[[str, int], cv2.VideoCapture]


def open(  # noqa: A001 (the plugin interface)
    uri: str, options: Options, opener: Opener = cv2.VideoCapture, ioctl: Ioctl = fcntl.ioctl
) -> Camera:
    """Opens `v4l2:///dev/…`. Raises CameraError.

    `opener` and `ioctl` stand in for OpenCV and the kernel where there is no camera.
    """
    return Camera(Path(unquote(urlsplit(uri).path)), options, opener, ioctl)


class Camera:
    """See `Source`. Frames carry the driver's time stamp where it lies on the monotonic clock."""

    live = True

    def __init__(self, device: Path, options: Options, opener: Opener, ioctl: Ioctl) -> None:
        self._device = device
        _check(device)
        self._node = os.path.realpath(device)
        node = _ask(device, self._node, ioctl)
        self._reader = opener(self._node, cv2.CAP_V4L2)
        if not self._reader.isOpened():
            if node is None:
                raise CameraError("input", f"{device}: this is no V4L2 device", _cameras(ioctl), lasting=True)
            raise _busy(device, self._node)
        for prop, value in _properties(options):
            self._reader.set(prop, value)
        self.fps = max(0.0, self._reader.get(cv2.CAP_PROP_FPS))
        self._pictures = Frames(self._reader)
        self._jpegs = Jpegs(str(device)) if _undecoded(self._reader) else None

    def read(self) -> Capture:
        """See `Source.read`. The read deadline is two seconds."""
        started = time.monotonic()
        image = self._pictures.read() if self._jpegs is None else self._read_undecoded()
        if image is not None:
            return self._stamp(image)
        if not exists(self._device) or os.path.realpath(self._device) != self._node:
            raise CameraError("gone", f"{self._device}: the camera is gone", "was it unplugged?")
        waited = time.monotonic() - started
        if waited < READ_DEADLINE_S / 2:
            time.sleep(READ_DEADLINE_S / 2 - waited)  # a read that fails at once must not become a busy loop
        raise StalledError(f"{self._device}: no frame within {READ_DEADLINE_S} s")

    def close(self) -> None:
        """See `Source.close`."""
        self._reader.release()

    def _read_undecoded(self) -> Picture | None:
        """The camera's JPEG, decoded; a driver that gives BGR all the same may do so."""
        ok, data = self._reader.read()
        if not ok or self._jpegs is None:
            return None
        given = np.asarray(data, np.uint8)
        return given if given.ndim == 3 and given.shape[2] == 3 else self._jpegs.decode(given)

    def _stamp(self, image: Picture) -> Capture:
        driver_ns = int(self._reader.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        age_ns = time.monotonic_ns() - driver_ns
        if 0 <= age_ns < 1_000_000_000:
            return stamped(image, "driver", age_ns=age_ns)
        return stamped(image, "arrival")


def _ask(device: Path, path: str, ioctl: Ioctl) -> Node | None:
    """What the driver says. Raises CameraError where no picture can come of it."""
    try:
        node = _v4l2_node.ask(path, ioctl)
    except PermissionError:  # though its mode allows it
        hint = "if the service was installed with --strict-devices, install it so again"
        raise CameraError("denied", f"{device}: opening it is not permitted", hint, lasting=True) from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(device, path) from None
        raise CameraError("gone", f"{device}: {error.strerror}", "was it unplugged?") from None
    if node is not None and node.loopback and not node.captures:
        raise CameraError("gone", f"{device}: {node.card}: no program gives it pictures yet", "start that program")
    if node is not None and not node.captures:
        text = f"{device}: {node.card}: this is {node.kind}, not a camera"
        raise CameraError("input", text, _cameras(ioctl), lasting=True)
    if node is not None and node.raw:
        raise _sensor(device, node, ioctl)
    return node


def _sensor(device: Path, node: Node, ioctl: Ioctl) -> CameraError:
    """For a node that gives what a sensor has measured, of which Argus makes pictures on a Jetson."""
    name = node.card.removeprefix("vi-output, ")
    if not node.tegra:
        text = f"{device}: {name}: it gives raw sensor data alone ({', '.join(node.formats)})"
        hint = "a pipeline may make pictures of them: gst:v4l2src device=… ! bayer2rgb, for 8 bits"
        return CameraError("codec", text, hint, lasting=True)
    nodes = _v4l2_node.nodes(Path(node.path).parent, ioctl)
    address = _v4l2_node.uri(node, nodes)
    others = sum(other.tegra and other.raw for other in nodes) > 1
    hint = f"use --source {address}, or uri: {address}"
    hint += ", most likely: Argus has numbers of its own for several sensors" if others else ""
    text = f"{device}: {name}: this is a CSI sensor, whose raw data are no pictures"
    return CameraError("codec", text, hint, lasting=True)


def _busy(device: Path, path: str) -> CameraError:
    by = _v4l2_node.holders(path)
    hint = f"it is held by {', '.join(by)}" if by else "is another program using it?"
    return CameraError("busy", f"{device}: the camera can't be opened", hint)


def _cameras(ioctl: Ioctl) -> str:
    nodes = _v4l2_node.nodes(DEV, ioctl)
    found = [f"{_v4l2_node.uri(node, nodes)} ({node.card})" for node in nodes if node.captures]
    return f"cameras here: {', '.join(found) or 'none'}"


def _check(device: Path) -> None:
    if not exists(device):
        others = sorted(str(path) for path in DEV.glob("video*"))
        hint = f"cameras here: {', '.join(others) or 'none'}"
        raise CameraError("gone", f"{device}: no such camera", hint)
    if not os.access(device, os.R_OK | os.W_OK):
        raise CameraError("denied", f"{device}: permission denied", "add the user to the group video", lasting=True)


def _undecoded(reader: cv2.VideoCapture) -> bool:
    """Whether the camera sends JPEGs, and OpenCV hands them over as they are from now on."""
    jpeg = int(reader.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"MJPG")
    return jpeg and bool(reader.set(cv2.CAP_PROP_CONVERT_RGB, 0))


def _properties(options: Options) -> list[tuple[int, float]]:
    wanted = [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options.fourcc) if options.fourcc else None),
        (cv2.CAP_PROP_FRAME_WIDTH, options.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
        (cv2.CAP_PROP_FPS, options.fps),
        (cv2.CAP_PROP_BUFFERSIZE, 2),
    ]
    return [(prop, float(value)) for prop, value in wanted if value is not None]
