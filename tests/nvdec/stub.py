"""PyNvVideoCodec as far as the product uses it, over FFmpeg and the stub driver's device memory.

Its names are those of the real module (`members.json`, dumped from 2.2.4). What is measured of the real one is the same
here: one picture for a packet, in the order in which they are shown; memory that the next call writes over; pictures
scaled to the size that the session began with; an empty packet that brings what is left; words of damage on stdout,
through C's stdio.
"""

# ruff: noqa: N802 (NVIDIA's names)

from __future__ import annotations

import ctypes
import enum
import json
import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np

MEMBERS = json.loads((Path(__file__).parent / "members.json").read_text())
CODECS = {"H264": "h264", "HEVC": "hevc", "AV1": "libdav1d", "VP8": "vp8", "VP9": "vp9"}
LARGEST = {"H264": (4096, 4096, 65536)}
"""An H100's, of H.264; for the others it has more than the tests ask for."""
FORMATS = {"yuv420p": "NV12", "yuvj420p": "NV12", "gray": "NV12", "yuv420p10le": "P016"}


def _enumeration(name: str) -> Any:
    return enum.IntEnum(name, MEMBERS[name]["members"], start=0)


cudaVideoCodec = _enumeration("cudaVideoCodec")  # noqa: N816
cudaVideoChromaFormat = _enumeration("cudaVideoChromaFormat")  # noqa: N816
DisplayDecodeLatencyType = _enumeration("DisplayDecodeLatencyType")
VideoPacketFlag = _enumeration("VideoPacketFlag")
Pixel_Format = _enumeration("Pixel_Format")


class PyNvVCException(Exception):  # noqa: N818
    """What the real one raises."""


class PyNvVCExceptionUnsupported(PyNvVCException):
    """See there."""


class _Named:
    """Has the members of the real class, and takes no others: a name that is none would go unnoticed there, too."""

    __slots__ = ("_values",)

    def __init__(self, **values: Any) -> None:
        object.__setattr__(self, "_values", values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in MEMBERS[type(self).__name__]["members"]:
            raise AttributeError(name)
        self._values[name] = value

    def __getattr__(self, name: str) -> Any:
        if name not in MEMBERS[type(self).__name__]["members"]:
            raise AttributeError(name)
        return self._values[name]


class PacketData(_Named):
    """See the real one."""

    def __init__(self) -> None:
        super().__init__(bsl_data=0, bsl=0, pts=0, decode_flag=0)


class CAIMemoryView(_Named):
    """See the real one."""


class DecodedFrame(_Named):
    """See the real one."""

    def cuda(self) -> list[CAIMemoryView]:
        views: list[CAIMemoryView] = self._values["views"]
        return views

    def GetPtrToPlane(self, plane: int) -> int:
        return int(self._values["planes"][plane])


class _Driver:
    """Device memory of the stub driver."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._library.edgeinfer_stub_translate.restype = ctypes.c_void_p
        self._library.edgeinfer_stub_translate.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
        self._library.cuMemFree_v2.argtypes = (ctypes.c_uint64,)
        self._library.cuMemAlloc_v2.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

    def current(self) -> None:
        """The primary context in this thread."""
        context = ctypes.c_void_p()
        self._library.cuInit(0)
        self._library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        self._library.cuCtxSetCurrent(context)

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        if status := self._library.cuMemAlloc_v2(ctypes.byref(address), size):
            raise PyNvVCException(f"cuMemAlloc failed: {status}")
        return address.value

    def wait(self, stream: int) -> None:
        self._library.cuStreamSynchronize(ctypes.c_void_p(stream))

    def free(self, address: int) -> None:
        self._library.cuMemFree_v2(address)

    def write(self, address: int, data: Any) -> None:
        ctypes.memmove(self._library.edgeinfer_stub_translate(address, data.nbytes), data.ctypes.data, data.nbytes)


class PyNvDecoder:
    """A session."""

    def __init__(self, codec: str, stream: int) -> None:
        """What was put into the stream before is done before the session's memory is written to again."""
        self._driver, self._stream = _Driver(), stream
        self._driver.current()
        self._context: Any = av.CodecContext.create(CODECS[codec], "r")
        self._context.thread_count = 1
        self._memory: list[tuple[int, int]] = []
        self._size: tuple[int, int] | None = None
        self._pictures = 0
        self._owner = threading.get_ident()

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:
        assert threading.get_ident() == self._owner
        self._driver.current()
        self._driver.wait(self._stream)
        data = ctypes.string_at(packet.bsl_data, packet.bsl) if packet.bsl else b""
        if os.environ.get("EDGEINFER_STUB_NVDEC_HANGS", "never").encode() in data:
            threading.Event().wait()
        given = None
        if data:
            given = av.Packet(data)
            given.pts = packet.pts
        try:
            frames = self._context.decode(given)
        except av.error.FFmpegError:
            frames = []
            self._complain()
        if given is None:
            self._context.flush_buffers()
        return [self._shown(place, frame) for place, frame in enumerate(frames)]

    def GetWidth(self) -> int:
        assert self._size is not None
        return self._size[0]

    def _shown(self, place: int, frame: Any) -> DecodedFrame:
        if frame.is_corrupt or frame.format.name not in FORMATS:
            self._complain()
        self._pictures += 1
        self._size = self._size or (frame.width, frame.height)
        width, height = self._size
        name = FORMATS.get(frame.format.name, "NV12")
        wanted = {"NV12": "nv12", "P016": "p010le"}[name]
        same = frame.reformat(width, height, format=wanted, dst_colorspace=None)
        depth, padded = (2 if name == "P016" else 1), width + width % 2
        planes = [
            _plane(plane, rows, padded * depth)
            for plane, rows in zip(same.planes, (height, (height + 1) // 2), strict=False)
        ]
        data = np.concatenate([plane.reshape(-1) for plane in planes])
        address = self._address(place, data.nbytes)
        self._driver.write(address, data)
        chroma = address + planes[0].nbytes
        views = [
            CAIMemoryView(shape=[height, padded, 1], stride=[padded, 1, 1], data=address),
            CAIMemoryView(shape=[height // 2, padded // 2, 2], stride=[padded, 2, 1], data=chroma),
        ]
        return DecodedFrame(timestamp=frame.pts, format=Pixel_Format[name], views=views, planes=(address, chroma))

    def _address(self, place: int, size: int) -> int:
        while len(self._memory) <= place:
            self._memory.append((self._driver.allocate(size), size))
        return self._memory[place][0]

    def _complain(self) -> None:
        library = ctypes.CDLL(None)
        library.printf(b"Decode Error occurred for picture %d\n", self._pictures)

    def __del__(self) -> None:
        for address, _ in getattr(self, "_memory", ()):
            self._driver.free(address)


def _plane(plane: Any, rows: int, length: int) -> Any:
    return np.ascontiguousarray(np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :length])


def CreateDecoder(**given: Any) -> PyNvDecoder:
    """See the real one."""
    assert given.keys() <= set(MEMBERS["CreateDecoder"]["parameters"]), given
    assert given["usedevicememory"]
    assert given["latency"] == DisplayDecodeLatencyType["LOW"]
    if os.environ.get("EDGEINFER_STUB_NVDEC") == "broken":
        raise PyNvVCException("PyNvDecoder constructor failed")
    return PyNvDecoder(given["codec"].name, given["cudastream"])


def GetDecoderCaps(**given: Any) -> dict[str, int]:
    """See the real one."""
    assert given.keys() <= set(MEMBERS["GetDecoderCaps"]["parameters"]), given
    if os.environ.get("EDGEINFER_STUB_NVDEC") == "no libnvcuvid":
        raise RuntimeError(
            "Could not dynamically load libnvcuvid.so.1. Please ensure Nvidia Graphics drivers are there"
        )
    name = given["codec"].name
    width, height, blocks = LARGEST.get(name, (8192, 8192, 262144))
    supported = name in CODECS and (name != "H264" or given["bitdepth"] == 8)
    return {
        "codec_id": int(given["codec"]),
        "chromaformat_id": int(given["chromaformat"]),
        "bitdepth": given["bitdepth"],
        "supported": int(supported),
        "num_decoder_engines": 7,
        "width_max": width * supported,
        "height_max": height * supported,
        "mb_num_max": blocks * supported,
        "width_min": 48,
        "height_min": 16,
    }
