"""A source for the tests: a clip, demultiplexed by FFmpeg and decoded by what `open_decoder` chooses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import av
import msgspec

from edgeinfer.codecs.choice import Wanted, open_decoder
from edgeinfer.codecs.decoder import Decoded
from edgeinfer.sources._clock import stamped
from edgeinfer.types import Capture


class Options(msgspec.Struct, frozen=True, kw_only=True):
    decoder: Wanted = "auto"
    live: bool = False
    loop: bool = False
    then: str = ""


def open(uri: str, options: Options) -> Clip:  # noqa: A001 (the plugin interface)
    return Clip(uri, options)


class Clip:
    """See `Source`. `then` is run before each picture, for what goes wrong."""

    def __init__(self, uri: str, options: Options) -> None:
        self.live, self.fps, self._options = options.live, 25.0, options
        self._file = av.open(uri)
        stream = self._file.streams.video[0]
        self._decoder = open_decoder(stream, uri, options.decoder, options.live)
        self.decoder = self._decoder.choice
        self._pictures = self._decoded(stream)
        self.count = 0

    def read(self) -> Capture | None:
        exec(self._options.then, {"self": self, "time": time})  # noqa: S102 (the test's own)
        self.count += 1
        decoded = next(self._pictures, None)
        return None if decoded is None else stamped(decoded.picture, "file", round((decoded.time_s or 0) * 1e9))

    def close(self) -> None:
        self._pictures.close()
        self._decoder.close()
        self._file.close()

    def _decoded(self, stream: Any) -> Any:
        return self._all(stream)

    def _all(self, stream: Any) -> Iterator[Decoded]:
        while True:
            for packet in self._file.demux(stream):
                yield from self._decoder.decode(packet) if packet.size else self._decoder.flush()
            if not self._options.loop:
                return
            self._file.seek(0)
