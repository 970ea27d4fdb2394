"""What a V4L2 node is, by its driver: asked before it is opened as a camera, since many nodes are none.

Layouts and numbers: the kernel's linux/videodev2.h (struct v4l2_capability, struct v4l2_fmtdesc); both are the same on
every architecture. What tegra-video says of a CSI sensor: driver `tegra-video`, card `vi-output, imx219 10-0010`, bus
`platform:tegra-capture-vi:2`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.guard.printable import printable

CAPABILITY = struct.Struct("=16s32s32sIII12x")
"""driver, card, bus_info, version, capabilities, device_caps, reserved."""
FORMAT = struct.Struct("=III32sII12x")
"""index, type, flags, description, pixelformat, mbus_code, reserved."""
QUERYCAP = 0x80000000 | CAPABILITY.size << 16 | ord("V") << 8
ENUM_FMT = 0xC0000000 | FORMAT.size << 16 | ord("V") << 8 | 2

VIDEO_CAPTURE, VIDEO_CAPTURE_MPLANE = 0x1, 0x1000
VIDEO_OUTPUT, VIDEO_OUTPUT_MPLANE, M2M_MPLANE, M2M = 0x2, 0x2000, 0x4000, 0x8000
META_CAPTURE, META_OUTPUT, DEVICE_CAPS = 0x800000, 0x8000000, 0x80000000
BUF_CAPTURE, BUF_CAPTURE_MPLANE = 1, 9
"""enum v4l2_buf_type."""
MOST_FORMATS = 256

_COLOURS = "BA81 GBRG GRBG RGGB BG10 GB10 BA10 RG10 BD10 BG12 GB12 BA12 RG12 BG14 GB14 GR14 RG14 BYR2 GB16 GR16 RG16"
BAYER = re.compile("|".join(_COLOURS.split()) + "|p[BGgR](AA|CC|EE)|[ab][BGgR]A8")
"""The formats V4L2_PIX_FMT_S{BGGR,GBRG,GRBG,RGGB}*: what a sensor has measured, not yet made into pictures."""
LOOPBACK = "v4l2 loopback"
TEGRA = re.compile(r"tegra-video|tegra-capture-vi|vi")

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True, slots=True)
class Node:
    """What a driver says of a node. `caps` are its own capabilities, `formats` what it captures in, as four letters."""

    path: str
    driver: str
    card: str
    bus: str
    caps: int
    formats: tuple[str, ...] = ()

    @property
    def captures(self) -> bool:
        """Whether pictures come out of it, and no others have to be put into it."""
        into = VIDEO_OUTPUT | VIDEO_OUTPUT_MPLANE | M2M | M2M_MPLANE
        gives = bool(self.caps & (VIDEO_CAPTURE | VIDEO_CAPTURE_MPLANE))
        return gives and (self.loopback or not self.caps & into)

    @property
    def loopback(self) -> bool:
        """Whether another program puts the pictures in. Its driver tells everything that it can do at any time."""
        return self.driver == LOOPBACK

    @property
    def raw(self) -> bool:
        """Whether it has no picture to give, only what a sensor has measured."""
        if not self.formats:
            return self.captures and self.tegra
        return self.captures and all(BAYER.fullmatch(name) for name in self.formats)

    @property
    def tegra(self) -> bool:
        """Whether its driver is the Jetson's for CSI; of a bridge or a sensor with a processor it gives pictures."""
        return bool(TEGRA.fullmatch(self.driver))

    @property
    def kind(self) -> str:
        """What it is for, in words, where it is no camera."""
        if self.caps & (META_CAPTURE | META_OUTPUT):
            return "a node for metadata"
        if self.caps & (M2M | M2M_MPLANE) or (self.caps & VIDEO_CAPTURE and self.caps & VIDEO_OUTPUT):
            return "an encoder, decoder or converter"
        return "a node for output" if self.caps & (VIDEO_OUTPUT | VIDEO_OUTPUT_MPLANE) else "no node for video"


def ask(path: str, ioctl: Ioctl = fcntl.ioctl) -> Node | None:
    """The node at `path`; None where it is no V4L2 device. Raises OSError where it can't be asked."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        block = bytearray(CAPABILITY.size)
        try:
            ioctl(descriptor, QUERYCAP, block)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return None
            raise
        node = parse(path, bytes(block))
        return Node(node.path, node.driver, node.card, node.bus, node.caps, _formats(descriptor, node.caps, ioctl))
    finally:
        os.close(descriptor)


def parse(path: str, block: bytes) -> Node:
    """A struct v4l2_capability. Old drivers don't tell a node's own capabilities apart from those of the device."""
    driver, card, bus, _, capabilities, own = CAPABILITY.unpack(block)
    return Node(path, _text(driver), _text(card), _text(bus), own if capabilities & DEVICE_CAPS else capabilities)


def _formats(descriptor: int, caps: int, ioctl: Ioctl) -> tuple[str, ...]:
    kind, found = BUF_CAPTURE_MPLANE if caps & VIDEO_CAPTURE_MPLANE else BUF_CAPTURE, list[str]()
    with contextlib.suppress(OSError):  # EINVAL after the last one
        for index in range(MOST_FORMATS):
            block = bytearray(FORMAT.pack(index, kind, 0, b"", 0, 0))
            ioctl(descriptor, ENUM_FMT, block)
            found.append(_text(struct.pack("=I", FORMAT.unpack(block)[4])))
    return tuple(found)


def _text(field: bytes) -> str:
    return printable(field.split(b"\0")[0].decode("utf-8", "replace"))


def nodes(dev: Path, ioctl: Ioctl = fcntl.ioctl) -> list[Node]:
    """Those below `dev` that answer, in the order of their numbers."""
    found = list[Node]()
    for path in sorted(dev.glob("video*"), key=lambda path: (len(path.name), path.name)):
        with contextlib.suppress(OSError):
            if (node := ask(str(path), ioctl)) is not None:
                found.append(node)
    return found


def uri(node: Node, among: list[Node]) -> str:
    """What a camera is called in a configuration. Argus counts sensors as the kernel does, as far as is known."""
    sensors = [other.path for other in among if other.tegra and other.raw]
    return f"csi://{sensors.index(node.path)}" if node.path in sensors else node.path


def holders(path: str, proc: Path = Path("/proc")) -> list[str]:
    """The processes that have a node open, by name and number, as far as we may see them."""
    found = list[str]()
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_points_to(link, path) for link in (process / "fd").iterdir()):
                name = printable((process / "comm").read_text(encoding="utf-8", errors="replace"))
                found.append(f"{name} (PID {process.name})")
    return sorted(found)


def _points_to(link: Path, path: str) -> bool:
    try:
        return str(link.readlink()) == path
    except OSError:  # closed meanwhile
        return False
