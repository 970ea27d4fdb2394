"""What a V4L2 node is: asked of a kernel of our own making, which answers in the layout of the kernel's header."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import CameraError
from edgeinfer.guard.printable import printable
from edgeinfer.sources import _v4l2_node, v4l2
from edgeinfer.sources._v4l2_node import Node
from tests.test_sources import FakeCapture

GCC = shutil.which("gcc")
HEADER = Path("/usr/include/linux/videodev2.h")
OWN = 0x80000000

SENSOR = ("tegra-video", "vi-output, imx219 10-0010", "platform:tegra-capture-vi:2", 0x84200001, 0x04200001, ("RG10",))
"""As `v4l2-ctl --info` shows an IMX219 of a Jetson."""
BRIDGE = (
    "tegra-video",
    "vi-output, lt6911uxc 2-0056",
    "platform:tegra-capture-vi:0",
    0x84200001,
    0x04200001,
    ("UYVY",),
)
WEBCAM = ("uvcvideo", "HD Webcam", "usb-3610000.usb-2", 0x84A00001, 0x04200001, ("MJPG", "YUYV"))
META = ("uvcvideo", "HD Webcam", "usb-3610000.usb-2", 0x84A00001, 0x04A00000, ())
DECODER = ("bcm2835-codec", "bcm2835-codec-decode", "platform:bcm2835-codec", 0x84204000, 0x04204000, ("YU12",))
LOOPBACK = ("v4l2 loopback", "Dummy", "platform:v4l2loopback-000", 0x85200002, 0x05200002, ())
OUTPUT = ("vivid", "vivid", "platform:vivid-000", 0x85200002, 0x05200002, ())
UNICAM = ("unicam", "unicam", "platform:fe801000.csi", 0x84200001, 0x04200001, ("pBAA", "BG10"))
Told = tuple[str, str, str, int, int, tuple[str, ...]]


class Kernel:
    """VIDIOC_QUERYCAP and VIDIOC_ENUM_FMT for the files of a folder, by struct v4l2_capability and v4l2_fmtdesc."""

    def __init__(self, folder: Path, *nodes: Told) -> None:
        self.folder = folder
        self.nodes = {str(folder / f"video{number}"): node for number, node in enumerate(nodes)}
        for path in self.nodes:
            Path(path).touch()

    def __call__(self, descriptor: int, request: int, block: bytearray) -> int:
        driver, card, bus, capabilities, own, formats = self.nodes[str(Path(f"/proc/self/fd/{descriptor}").readlink())]
        if request == 0x80685600:
            assert len(block) == 104
            text = driver.encode().ljust(16, b"\0") + card.encode().ljust(32, b"\0") + bus.encode().ljust(32, b"\0")
            block[:] = text + struct.pack("=6I", 0x050F94, capabilities, own, 0, 0, 0)
            return 0
        assert request == 0xC0405602
        index, kind = struct.unpack_from("=II", block)
        if kind not in (1, 9) or index >= len(formats):
            raise OSError(errno.EINVAL, "Invalid argument")
        block[44:48] = formats[index].encode()
        return 0

    def open(self, number: int, working: bool = True) -> v4l2.Camera:
        opener: Any = FakeCapture if working else Broken
        return v4l2.open(f"v4l2://{self.folder}/video{number}", v4l2.Options(), opener, self)


class Broken(FakeCapture):
    def __init__(self, device: str, api: int) -> None:
        super().__init__(device, api)
        self.opened = False


def refused(kernel: Kernel, number: int, working: bool = True) -> CameraError:
    with pytest.raises(CameraError) as caught:
        kernel.open(number, working)
    return caught.value


@pytest.mark.skipif(not HEADER.exists() or GCC is None, reason="no kernel headers or no compiler")
def test_the_layout_is_that_of_the_kernels_header(tmp_path: Path) -> None:
    fields = [
        f"offsetof(struct v4l2_capability, {name})" for name in ("card", "bus_info", "capabilities", "device_caps")
    ]
    fields += [f"offsetof(struct v4l2_fmtdesc, {name})" for name in ("type", "pixelformat")]
    fields += ["sizeof(struct v4l2_capability)", "sizeof(struct v4l2_fmtdesc)"]
    fields += [
        "VIDIOC_QUERYCAP",
        "VIDIOC_ENUM_FMT",
        "V4L2_BUF_TYPE_VIDEO_CAPTURE",
        "V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE",
    ]
    names = (
        "VIDEO_CAPTURE",
        "VIDEO_CAPTURE_MPLANE",
        "VIDEO_OUTPUT",
        "VIDEO_OUTPUT_MPLANE",
        "META_CAPTURE",
        "META_OUTPUT",
    )
    fields += [f"V4L2_CAP_{name}" for name in (*names, "DEVICE_CAPS", "VIDEO_M2M", "VIDEO_M2M_MPLANE")]
    body = "".join(f'printf("%lu ", (unsigned long)({field}));' for field in fields)
    source = "#include <stddef.h>\n#include <stdio.h>\n#include <linux/videodev2.h>\nint main() {" + body + "}"
    (tmp_path / "x.c").write_text(source)
    subprocess.run([str(GCC), "-o", str(tmp_path / "x"), str(tmp_path / "x.c")], check=True)
    told = [int(word) for word in subprocess.check_output([str(tmp_path / "x")], text=True).split()]
    own = _v4l2_node
    assert told == [
        *(16, 48, 84, 88, 4, 44, own.CAPABILITY.size, own.FORMAT.size, own.QUERYCAP, own.ENUM_FMT),
        *(own.BUF_CAPTURE, own.BUF_CAPTURE_MPLANE, own.VIDEO_CAPTURE, own.VIDEO_CAPTURE_MPLANE, own.VIDEO_OUTPUT),
        *(own.VIDEO_OUTPUT_MPLANE, own.META_CAPTURE, own.META_OUTPUT, own.DEVICE_CAPS, own.M2M, own.M2M_MPLANE),
    ]


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers")
def test_every_raw_format_of_the_kernels_header_is_known_as_one() -> None:
    found = re.findall(
        r"define V4L2_PIX_FMT_(\w+)\s+v4l2_fourcc\('(.)', '(.)', '(.)', '(.)'\)", HEADER.read_text(encoding="latin-1")
    )
    raw = {name: "".join(letters) for name, *letters in found if re.match("S(BGGR|GBRG|GRBG|RGGB)", name)}
    assert len(raw) > 30
    assert not [name for name, fourcc in raw.items() if not _v4l2_node.BAYER.fullmatch(fourcc)]
    others = {name: "".join(letters) for name, *letters in found if name not in raw}
    assert not [name for name, fourcc in others.items() if _v4l2_node.BAYER.fullmatch(fourcc)]


@pytest.mark.parametrize(
    "node", [WEBCAM, BRIDGE, (*WEBCAM[:3], 0x1, 0, ("YUYV",)), (*WEBCAM[:3], 0x84001000, 0x1000, ())]
)
def test_what_gives_pictures_is_opened(tmp_path: Path, node: Told) -> None:
    Kernel(tmp_path, node).open(0).close()


@pytest.mark.parametrize("formats", [("RG10",), ("RG10", "BG12"), ()])
def test_a_csi_sensor_is_named_with_its_uri(tmp_path: Path, formats: tuple[str, ...]) -> None:
    error = refused(Kernel(tmp_path, (*SENSOR[:5], formats)), 0)
    assert (error.code, error.lasting) == ("codec", True)
    assert "imx219 10-0010: this is a CSI sensor" in str(error)
    assert "use --source csi://0, or uri: csi://0" in str(error)
    assert "most likely" not in str(error)


def test_of_several_sensors_the_number_is_said_with_care(tmp_path: Path) -> None:
    error = refused(Kernel(tmp_path, WEBCAM, META, SENSOR, BRIDGE, SENSOR), 4)
    assert "csi://1, most likely" in str(error)


def test_raw_data_of_another_driver_is_no_csi_camera_of_a_jetson(tmp_path: Path) -> None:
    error = refused(Kernel(tmp_path, UNICAM), 0)
    assert "raw sensor data alone (pBAA, BG10)" in str(error)
    assert "csi://" not in str(error)


@pytest.mark.parametrize(
    ("node", "says"), [(META, "a node for metadata"), (DECODER, "an encoder, decoder"), (OUTPUT, "a node for output")]
)
def test_what_is_no_camera_says_so_and_names_those_that_are(
    tmp_path: Path, node: Told, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(tmp_path, WEBCAM, node, SENSOR)
    monkeypatch.setattr(v4l2, "DEV", tmp_path)
    error = refused(kernel, 1)
    assert f"this is {says}" in str(error)
    assert f"cameras here: {tmp_path}/video0 (HD Webcam), csi://0 (vi-output, imx219 10-0010)" in str(error)
    assert error.lasting


def test_a_camera_in_use_is_busy_and_its_holder_is_named(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, WEBCAM)
    with (tmp_path / "video0").open() as file:
        holder = subprocess.Popen([str(shutil.which("sleep")), "60"], stdin=file)
    try:
        error = refused(kernel, 0, working=False)
    finally:
        holder.kill()
        holder.wait()
    assert (error.code, error.lasting) == ("busy", False)
    assert f"sleep (PID {holder.pid})" in str(error)


def test_a_driver_that_lets_in_one_at_a_time_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, WEBCAM)

    def taken(path: str, *_: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "open", taken)
    assert refused(kernel, 0).code == "busy"


def test_a_camera_that_is_unplugged_at_this_moment_is_gone(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, WEBCAM)

    def unplugged(*_: object) -> int:
        raise OSError(errno.ENODEV, "No such device")

    opener: Any = FakeCapture
    with pytest.raises(CameraError) as caught:
        v4l2.open(f"v4l2://{kernel.folder}/video0", v4l2.Options(), opener, unplugged)
    assert (caught.value.code, caught.value.lasting) == ("gone", False)


def test_a_device_that_a_policy_closes_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DevicePolicy= says EPERM, whatever the mode of the node says."""
    kernel = Kernel(tmp_path, WEBCAM)

    def closed(path: str, *_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "open", closed)
    error = refused(kernel, 0)
    assert (error.code, error.lasting) == ("denied", True)
    assert "--strict-devices" in str(error)


def test_a_file_that_is_no_device_says_so(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    opener: Any = Broken
    with pytest.raises(CameraError, match="no V4L2 device"):
        v4l2.open(f"v4l2://{tmp_path}/video0", v4l2.Options(), opener)


@pytest.mark.skipif(not list(Path("/dev").glob("video*")), reason="no V4L2 device here")
def test_real_nodes_answer() -> None:
    assert all(node.driver and node.caps for node in _v4l2_node.nodes(Path("/dev")))


NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0", categories=["L", "N", "P"]), max_size=15)


@given(NAMES, NAMES, NAMES, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_whatever_the_struct_holds_is_read_as_it_is(driver: str, card: str, bus: str, all_of_it: int, own: int) -> None:
    text = b"".join(word.encode().ljust(size, b"\0") for word, size in ((driver, 16), (card, 32), (bus, 32)))
    node = _v4l2_node.parse("x", text + struct.pack("=6I", 0, all_of_it, own, 1, 2, 3))
    assert node == Node("x", driver, card, bus, own if all_of_it & OWN else all_of_it)


@given(st.binary(min_size=104, max_size=104), st.lists(st.text(max_size=4), max_size=3))
def test_no_bytes_of_a_driver_reach_a_terminal_or_raise(block: bytes, formats: list[str]) -> None:
    node = _v4l2_node.parse("x", block)
    node = Node(node.path, node.driver, node.card, node.bus, node.caps, tuple(formats))
    assert node.kind
    assert node.raw in (True, False)
    assert all(printable(text) == text and "\n" not in text for text in (node.driver, node.card, node.bus))


@pytest.mark.parametrize("own", [0x05008003, 0x05000003, 0x05008001, 0x05000001])
def test_pictures_of_another_program_are_taken_whatever_else_their_driver_can_do(tmp_path: Path, own: int) -> None:
    """v4l2loopback tells of capture, output and conversion at once, by its version and its options."""
    kernel = Kernel(tmp_path, (*LOOPBACK[:3], own | OWN, own, ("YUYV",)))
    kernel.open(0).close()


def test_a_loopback_that_nobody_writes_to_is_tried_again_soon(tmp_path: Path) -> None:
    error = refused(Kernel(tmp_path, LOOPBACK), 0)
    assert (error.code, error.lasting) == ("gone", False)
    assert "no program gives it pictures yet" in error.message
