"""A small RTSP server (RFC 2326) that plays one clip to many clients over TCP, each at the clip's own rate, for ever.

    python -m edgeinfer.bench.server CLIP

It listens on 127.0.0.1 alone, prints its port, and ends with its standard input. Clients are not in step with each
other: each begins with the clip's first picture when it asks for it, as cameras that were switched on one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from edgeinfer.bench.packets import CLOCK_HZ, Clip, read_clip
from edgeinfer.errors import EdgeinferError

MAX_REQUEST = 1 << 14
METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"


class Session:
    """One client's connection."""

    def __init__(self, clip: Clip, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clip, self._reader, self._writer = clip, reader, writer
        self._playing: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answers requests until the client leaves."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            while (request := await self._request()) is not None:
                self._writer.write(self._answer(*request))
                if request[0] == "PLAY" and self._playing is None:
                    self._playing = asyncio.ensure_future(self._play())
                if request[0] == "TEARDOWN":
                    break
        if self._playing is not None:
            self._playing.cancel()
        self._writer.close()

    async def _request(self) -> tuple[str, str, dict[str, str]] | None:
        """The next request: method, URL and headers. Interleaved data of the client's (RTCP) is passed over."""
        first = await self._reader.read(1)
        while first == b"$":
            _, size = struct.unpack(">BH", await self._reader.readexactly(3))
            await self._reader.readexactly(size)
            first = await self._reader.read(1)
        if not first:
            return None
        head = (first + await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.strip().split("\r\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (text.partition(":") for text in rest)}
        await self._reader.readexactly(min(int(headers.get("content-length", "0")), MAX_REQUEST))
        method, url, _ = line.split(" ", 2)
        return method, url, headers

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bytes:
        status, more, body = "200 OK", dict[str, str](), ""
        if method == "OPTIONS":
            more = {"Public": METHODS}
        elif method == "DESCRIBE":
            body = self._clip.sdp
            more = {"Content-Type": "application/sdp", "Content-Base": f"{url.rstrip('/')}/"}
        elif method == "SETUP":
            over_tcp = "interleaved" in headers.get("transport", "")
            status = status if over_tcp else "461 Unsupported Transport"
            more = {"Transport": TCP, "Session": "1"} if over_tcp else {}
        elif method == "PLAY":
            more = {"Session": "1", "RTP-Info": f"url={url.rstrip('/')}/track;seq=0;rtptime=0"}
        elif method in ("TEARDOWN", "GET_PARAMETER"):
            more = {"Session": "1"}
        else:
            status = "501 Not Implemented"
        lines = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '0')}", *(f"{k}: {v}" for k, v in more.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        with contextlib.suppress(ConnectionError):
            for at, data in _stream(self._clip):
                await asyncio.sleep(begun_s + at / CLOCK_HZ - loop.time())
                self._writer.write(data)
                await self._writer.drain()


def _stream(clip: Clip) -> Iterator[tuple[int, bytes]]:
    """For ever: when a picture is due, in ticks, and its interleaved RTP packets."""
    sequence = 0
    for begun in itertools.count(0, clip.ticks):
        for picture in clip.pictures:
            packets, shown = list[bytes](), begun + picture.shown & 0xFFFFFFFF
            for number, payload in enumerate(picture.payloads, 1):
                marker = (number == len(picture.payloads)) << 7
                header = struct.pack(">BBHII", 0x80, marker | 96, sequence & 0xFFFF, shown, 1)
                packets += [struct.pack(">BBH", 0x24, 0, len(header) + len(payload)), header, payload]
                sequence += 1
            yield begun + picture.due, b"".join(packets)


async def serve(clip: Clip) -> None:
    """Until standard input ends."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Session(clip, reader, writer).serve()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, limit=MAX_REQUEST)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # clients that are connected still are not waited for


def main(path: str) -> None:
    """Entry point of the process."""
    try:
        clip = read_clip(Path(path))
    except EdgeinferError as error:
        sys.exit(str(error))
    asyncio.run(serve(clip))


if __name__ == "__main__":
    main(sys.argv[1])
