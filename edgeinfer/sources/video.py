"""Video files, through PyAV (FFmpeg): every frame at the speed of inference, or in real time like a camera."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from edgeinfer.codecs.choice import Wanted, in_software, open_decoder, wants_nvdec
from edgeinfer.codecs.decoder import Decoded, Elsewhere, Restarting, VideoDecoder
from edgeinfer.config.paths import check_readable
from edgeinfer.cuda import video
from edgeinfer.errors import InputError
from edgeinfer.interfaces import NoRoom
from edgeinfer.sources._clock import Pacer, stamped
from edgeinfer.sources._file import VideoPackets, is_turned
from edgeinfer.types import Capture, DecoderChoice

TRIES, PAUSE_S = 60, 0.25
USUAL_FPS = 25.0
"""Of a file that names no rate."""
EXACT = frozenset({".mp4", ".m4v", ".mov"})
"""Containers whose header counts the frames exactly; elsewhere the count is an estimate."""


class Options(Struct, frozen=True, kw_only=True):
    """`realtime` plays at the file's own rate and drops like a camera; `loop` starts again at the end.

    `decoder: av` is FFmpeg on the CPU; `nvdec` the GPU's (`edgeinfer[nvdec]`); `auto` is NVDEC where TensorRT is and
    the GPU decodes the file, else FFmpeg.
    """

    realtime: bool = False
    loop: bool = False
    decoder: Wanted = "auto"


def open(uri: str, options: Options) -> VideoFile:  # noqa: A001 (the plugin interface)
    """Opens the file. Raises InputError, and UnavailableError where the decoder that is wanted is not here."""
    return VideoFile(Path(uri), options)


def reconnects(uri: str, options: Options) -> bool:
    """See `Reopening`. One that has no end is opened again like a camera; what ends would begin twice."""
    return options.realtime and options.loop


def isolate(uri: str, options: Options) -> bool:
    """See `Isolating`. In real time there may be as many as cameras: in one interpreter they would starve it."""
    return options.realtime and not wants_nvdec(options.decoder)


class VideoFile:
    """See `Source`."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path, self._options = path, options
        self._playing = Playing(path, options)
        self.live = options.realtime
        self.fps = self._playing.fps
        self._period_s = 1 / (self.fps or USUAL_FPS)
        self._pacer = Pacer(1 / self._period_s) if options.realtime else None
        self._expected = self._playing.expected
        self._frames = 0
        self._played_s = self._place_s = 0.0

    @property
    def decoder(self) -> DecoderChoice:
        """See `Decoding`."""
        return self._playing.decoder

    def read(self) -> Capture | None:
        """See `Source.read`. A file that ends well before the length in its header raises InputError."""
        decoded = self._playing.next()
        if decoded is None and self._options.loop and self._frames:
            self._start_again()
            decoded = self._playing.next()
        if decoded is None:
            self._check_end()
            return None
        self._mark(decoded)
        if self._pacer:
            self._pacer.wait()
        return stamped(decoded.picture, "file", round(self._place_s * 1e9))

    def close(self) -> None:
        """See `Source.close`."""
        self._playing.close()

    def _mark(self, decoded: Decoded) -> None:
        """Notes where in the medium we are; a picture that doesn't say where it belongs follows the one before."""
        since_s = None if decoded.time_s is None else decoded.time_s - self._playing.start_s
        if since_s is not None:
            self._place_s = self._played_s + since_s
        elif self._frames:
            self._place_s += self._period_s
        self._frames += 1

    def _start_again(self) -> None:
        self._playing.again()
        self._frames = 0
        self._place_s += self._period_s  # time goes on from one round to the next
        self._played_s = self._place_s

    def _check_end(self) -> None:
        missing = self._expected - self._frames
        allowance = 2.0 if self._path.suffix.lower() in EXACT else max(2, 0.02 * self._expected)
        if self._frames == 0:
            raise InputError(f"{self._path}: not one frame can be decoded", "it is damaged, or in an unknown codec")
        if self._expected > 0 and missing > allowance:
            raise InputError(
                f"{self._path}: ended after {self._frames} of {self._expected} frames: truncated or damaged",
                "the frames before that were published",
            )


class Playing:
    """A file from its beginning to its end, and from its beginning again."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path, self._options = path, options
        self._packets = VideoPackets(path)
        self._decoder: VideoDecoder | None = None
        self._begin()

    def again(self) -> None:
        """From the beginning, by the same decoder where it can. Raises what the constructor raises."""
        self._packets.close()
        self._packets = _open_again(self._path)
        self._begin()

    def _begin(self) -> None:
        stream, before = self._packets.stream, self._decoder
        if not (isinstance(before, Restarting) and before.restart(stream)):
            self._let_go()
            try:
                turned = video.allowed() and wants_nvdec(self._options.decoder) and is_turned(self._path)
                self._decoder = open_decoder(
                    stream, str(self._path), self._options.decoder, self._options.realtime, turned
                )
            except BaseException:
                self._packets.close()
                raise
            self.decoder = self._decoder.choice
        self.fps, self.expected, self.start_s = self._packets.fps, self._packets.expected, self._packets.start_s
        self._pictures: Iterator[Decoded] = iter(())
        self._ended = False

    def next(self) -> Decoded | None:
        """The next picture, None at the end. Raises NoRoom, and what `VideoDecoder.decode` raises."""
        while True:
            assert self._decoder is not None  # noqa: S101 (it is there until it is closed)
            if not self._decoder.has_room:
                raise NoRoom
            try:
                for decoded in self._pictures:
                    return decoded
            except Elsewhere as error:  # before the first picture
                self._start_in_software(error)
                continue
            if self._ended:
                return None
            packet = self._packets.next()
            self._ended = packet is None
            self._pictures = self._decoder.flush() if packet is None else self._decoder.decode(packet)

    def _start_in_software(self, why: Elsewhere) -> None:
        self._let_go()
        self._packets.close()
        self._packets = _open_again(self._path)
        self._decoder = in_software(self._packets.stream, str(self._path), self._options.realtime, why)
        self.decoder = self._decoder.choice
        self._pictures = iter(())

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        self._packets.close()
        self._let_go()

    def _let_go(self) -> None:
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()


def _open_again(path: Path) -> VideoPackets:
    """A file that was open before. One that is there still and can't be opened lacks descriptors, for a moment."""
    for _ in range(TRIES):
        check_readable(path)
        with contextlib.suppress(InputError):
            return VideoPackets(path)
        time.sleep(PAUSE_S)
    return VideoPackets(path)
