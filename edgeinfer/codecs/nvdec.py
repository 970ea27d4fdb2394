"""NVDEC, the GPU's own decoder: pictures stay in its memory."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator
from typing import Any

from edgeinfer.codecs.bitstream import Bitstream
from edgeinfer.codecs.decoder import Decoded, Elsewhere, check_size
from edgeinfer.codecs.unpacking import colour
from edgeinfer.cuda import video, words
from edgeinfer.errors import CameraError, OutOfMemoryError
from edgeinfer.frames import pool
from edgeinfer.gpu.arena import Arena, arenas
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.gpu.surfaces import DeviceSurface, downloads
from edgeinfer.guard.limits import MAX_FILE_SLOTS, MAX_SLOTS
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.types import DecoderChoice, Surface

log = logging.getLogger(__name__)

NAME = "nvdec"
RENEWAL_S = 1.0
"""Making a session takes time and memory on the GPU: a live stream that changes more often gets none meanwhile."""
WITHOUT = 300
"""Where there was no memory for its pictures on the GPU, a stream asks for it again after so many."""
MAX_FAILURES = 3
NO_TIME = -(1 << 62)
_LAYOUTS: dict[str, Layout] = {"NV12": "nv12", "P016": "p010"}


class NvDecoder:
    """See `VideoDecoder`. A picture comes out with its packet, but for those that are shown later than they are sent.

    NVIDIA's parser goes on after damage, and gives damaged pictures as well as sound ones: it does not say which.
    """

    def __init__(self, stream: Any, what: str, why: str, live: bool = True, optional: bool = False) -> None:
        """Whether this GPU decodes the stream is to be asked before: `video.lacks`. Raises what `Cuda` does.

        `stream`: PyAV's, or its facts. `optional`: where it turns out with the first packets that it doesn't, Elsewhere
        is raised, not CameraError.
        """
        self.choice = DecoderChoice(NAME, why)
        self._what, self._live, self._optional = what, live, optional
        words.listen()
        self._nvc, self._cuda = video.load(), Cuda()
        self._stream, self._event = self._cuda.stream(), self._cuda.event()
        self._arena: Arena | None = None
        self._size = self._without = 0
        self._context, self._time_base = stream.codec_context, stream.time_base
        self._bitstream = Bitstream(stream)
        self._session: Any = None
        self._made_s = float("-inf")
        self._failures = 0

    @property
    def has_room(self) -> bool:
        """See `VideoDecoder.has_room`."""
        return self._arena is None or self._arena.has_room

    def decode(self, packet: Any, key_frames_only: bool = False) -> Iterator[Decoded]:
        """See `VideoDecoder.decode`. It must be gone through before the next call: NVDEC's memory is used again."""
        if packet.size == 0 or (key_frames_only and not packet.is_keyframe):
            return
        key, pts = packet.is_keyframe, NO_TIME if packet.pts is None else packet.pts
        for data in self._bitstream.units(packet):
            if self._bitstream.changes(data) and self._session is not None:
                yield from self.flush()
                self._session = None
            if self._session is None:
                if not key or (self._live and time.monotonic() - self._made_s < RENEWAL_S):
                    continue
                self._begin()
                yield from self._decoded(self._bitstream.head() + data, pts)
            else:
                yield from self._decoded(data, pts)

    def flush(self) -> Iterator[Decoded]:
        """See `VideoDecoder.flush`."""
        if self._session is not None:
            yield from self._decoded(b"", NO_TIME)

    def restart(self, stream: Any) -> bool:
        """See `Restarting`. Making a session took 46 ms on an H100."""
        if stream.codec_context.name != self._context.name:
            return False
        known = self._bitstream.parameters
        self._context, self._time_base, self._bitstream = stream.codec_context, stream.time_base, Bitstream(stream)
        self._bitstream.parameters = known or self._bitstream.parameters
        return True

    def close(self) -> None:
        """See `VideoDecoder.close`."""
        self._session = None
        self._let_go()
        self._cuda.attempt("cudaEventDestroy", self._event)
        self._cuda.attempt("cudaStreamDestroy", self._stream)

    def _begin(self) -> None:
        self._made_s = time.monotonic()
        try:
            self._session = self._nvc.CreateDecoder(
                gpuid=0,
                codec=getattr(self._nvc.cudaVideoCodec, video.CODECS[self._context.name]),
                cudacontext=0,
                cudastream=self._stream,
                usedevicememory=True,
                latency=self._nvc.DisplayDecodeLatencyType.LOW,
            )
        except Exception as error:
            raise self._broken(error) from None

    def _decoded(self, data: bytes, pts: int) -> Iterator[Decoded]:
        flags = self._nvc.VideoPacketFlag
        packet = self._nvc.PacketData()
        packet.bsl_data = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value if data else 0
        packet.bsl, packet.pts = len(data), pts
        packet.decode_flag = flags.ENDOFPICTURE if data else flags.ENDOFSTREAM
        try:
            frames = self._session.Decode(packet)
        except Exception as error:
            self._session = None
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise self._broken(error) from None
            log.debug("%s: NVDEC: %s", self._what, error)
            return
        for frame in frames:
            self._failures, self._optional = 0, False
            stamp = frame.timestamp
            # No name for the picture here: it would keep its slot until the next one is made.
            yield Decoded(self._surface(frame), None if stamp == NO_TIME else float(stamp * self._time_base))

    def _surface(self, frame: Any) -> Surface:
        """A frame, copied before the next one takes its place: on the session's own stream."""
        layout = _LAYOUTS.get(frame.format.name)
        if layout is None:
            raise self._broken(ValueError(f"it gives {frame.format.name}"))
        height, padded = (int(length) for length in frame.cuda()[0].shape[:2])
        check_size(self._what, padded, height)
        width = self._context.width if 0 <= padded - self._context.width <= 1 else padded  # made even
        shape = Shape(layout, width, height)
        read_as = colour(self._context, height, self._context.pix_fmt)
        addresses = frame.GetPtrToPlane(0), frame.GetPtrToPlane(1)
        pitch = (addresses[1] - addresses[0]) // height  # its own word for it counts in samples or in bytes
        arena = self._arena_for(shape.size)
        own = None if arena is None else arena.take()
        if own is not None:
            self._copy(own.address, addresses, pitch, shape)
            self._cuda.record(own.written, self._stream)
            return DeviceSurface(own, shape, read_as)
        self._cuda.finish(self._event, self._stream)
        memory = pool.bytes(shape.size)
        for place, address, rows, length in _planes(shape, addresses):
            downloads().rows(memory[place : place + rows * length].reshape(rows, length), address, pitch)
        return HostSurface(memory, shape, read_as)

    def _arena_for(self, size: int) -> Arena | None:
        """Memory for pictures of that size; None where the GPU has none to spare now."""
        if size == self._size and (self._arena is not None or self._without > 0):
            self._without -= 1
            return self._arena
        self._let_go()
        self._size, self._without = size, WITHOUT
        try:
            self._arena = arenas.make(self._cuda, size, MAX_SLOTS if self._live else MAX_FILE_SLOTS)
        except OutOfMemoryError as error:
            log.warning("%s: its pictures come through host memory: %s", self._what, error.message)
        return self._arena

    def _let_go(self) -> None:
        arena, self._arena = self._arena, None
        if arena is not None:
            arena.close()

    def _copy(self, target: int, addresses: tuple[int, int], pitch: int, shape: Shape) -> None:
        if pitch * shape.height == shape.luma_bytes and addresses[1] - addresses[0] == shape.luma_bytes:
            self._cuda.copy(target, addresses[0], shape.size, self._stream)
        else:
            for place, address, rows, length in _planes(shape, addresses):
                self._cuda.copy_rows(target + place, address, length, rows, pitch, self._stream)

    def _broken(self, error: Exception) -> Exception:
        text = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        if self._optional:
            return Elsewhere(f"it fails with this stream: {text}")
        return CameraError("codec", f"{self._what}: NVDEC fails: {text}", video.SOFTWARE)


def _planes(shape: Shape, addresses: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Of each plane: where it begins in the surface, where it lies now, its rows, and the bytes of one."""
    rows, columns = shape.chroma
    yield 0, addresses[0], shape.height, shape.width * shape.depth
    yield shape.luma_bytes, addresses[1], rows, 2 * columns * shape.depth
