"""A video file's packets: opening and demultiplexing with FFmpeg. Nothing is decoded.

What the file says can make FFmpeg open nothing but the file itself: no playlist, no list of others, no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from edgeinfer.codecs.quiet import silence
from edgeinfer.config.paths import check_readable
from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_PIXELS

_FORMATS = (
    "mov,matroska,avi,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,obu,av1,ivf,flv,live_flv,gif,apng,"
    "mjpeg,mpjpeg,smjpeg,asf,ogg,mxf,gxf,nut,dv,yuv4mpegpipe,vc1,vc1test,rm,wtv,swf,dirac,dnxhd,cavsvideo,dhav,nsv,"
    "nuv,pva,ty,flic,roq,smk,bink,jpeg_pipe,png_pipe,bmp_pipe,webp_pipe"
)
"""FFmpeg's demultiplexers that read one file and no other."""


class VideoPackets:
    """The packets of a file's best video stream.

    stream: PyAV's. fps: the nominal rate, 0 where there is none. expected: how many pictures its header promises, 0
    where it says nothing. start_s: the time stamp that its first picture has.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError."""
        _check(path)
        self._path = path
        silence()
        # For the container alone: PyAV 16.1 crashes where streams with options come to light late (FLV).
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        try:
            self._container = av.open(f"file:{path}", container_options=options)
        except (av.error.FFmpegError, OSError, ValueError, MemoryError):
            raise self._no_video() from None
        try:
            self.stream = self._best()
            self._packets = self._container.demux(self.stream)
        except BaseException:
            self._container.close()
            raise
        self.fps = float(self.stream.guessed_rate or self.stream.average_rate or 0)
        self.expected = self.stream.frames or int(self._duration_s() * self.fps + 0.5)
        self.start_s = float((self.stream.start_time or 0) * self.stream.time_base)

    def next(self) -> Any:
        """The next packet, an `av.Packet`, or None at the end; what can't be read on ends here too."""
        try:
            packet = next(self._packets)
        except (StopIteration, av.error.FFmpegError, OSError, ValueError):
            return None
        return packet if packet.size else None

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _best(self) -> Any:
        """The stream that is to be shown: not a cover picture where there is a film."""
        stream: Any = self._container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise self._no_video()
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            text = f"{self._path}: {width} × {height} pixels are too many"
            raise InputError(text, "8192 × 8192 are the most")
        return stream

    def _no_video(self) -> InputError:
        return InputError(f"{self._path}: not a video that FFmpeg can open", "is it complete, and really a video?")

    def _duration_s(self) -> float:
        if self._container.duration is not None:
            return float(self._container.duration / av.time_base)
        return float((self.stream.duration or 0) * self.stream.time_base)


def _check(path: Path) -> None:
    check_readable(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory", "a folder of images is a source too, a folder of videos is not")
    if not path.is_file():
        raise InputError(f"{path}: no regular file", "a pipe or device is no video; gst:filesrc location=… reads those")


def is_turned(path: Path) -> bool:
    """Whether the file's pictures are to be turned. PyAV says so of a decoded picture alone."""
    packets = VideoPackets(path)
    try:
        while (packet := packets.next()) is not None:
            for frame in packets.stream.codec_context.decode(packet):
                return bool(round(frame.rotation / 90) % 4)
    except av.error.FFmpegError:
        return False
    finally:
        packets.close()
    return False
