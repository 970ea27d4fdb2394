"""A TCP proxy that misbehaves on demand: between a client and a real server, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CHUNK = 4096


@dataclass
class FaultyProxy:
    """Forwards to `target` on 127.0.0.1. The faults may be changed at any time and act on open connections too.

    latency_s: added to every chunk. stalled: nothing goes on, nothing is closed. bytes_per_s: how much the server's
    side may say. truncate_after: the server's side is cut after so many bytes of a connection. reset: connections end
    with RST. half_close: the server's side ends, the client's stays. answer: bytes instead of any server.
    """

    target: int
    latency_s: float = 0.0
    stalled: bool = False
    bytes_per_s: float | None = None
    truncate_after: int | None = None
    half_closed: bool = False
    answer: bytes | None = None
    port: int = 0
    connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    def reset(self) -> None:
        """Ends all open connections with RST."""
        self._call(self._abort_all)

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def _abort_all(self) -> None:
        for writer in self._writers:
            peer = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.answer is not None:
                while await reader.read(CHUNK) and self.answer:
                    writer.write(self.answer)
                    await writer.drain()
            else:
                await self._forward(reader, writer)
        writer.close()
        self._writers.discard(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(server_writer)
        up = asyncio.create_task(self._pump(reader, server_writer, None))
        try:
            await self._pump(server_reader, writer, self.truncate_after)
        finally:
            up.cancel()
            server_writer.close()
            self._writers.discard(server_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        sent = 0
        while data := await reader.read(CHUNK):
            while self.stalled:
                await asyncio.sleep(0.01)
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if limit is not None:
                data = data[: max(0, limit - sent)]
                if not data:
                    return
            if self.half_closed:
                writer.write_eof()
                await asyncio.sleep(3600)
            writer.write(data)
            await writer.drain()
            sent += len(data)
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)


@contextmanager
def faulty_proxy(target: int, answer: bytes | None = None) -> Iterator[FaultyProxy]:
    """A running proxy before the port `target`."""
    proxy = FaultyProxy(target, answer=answer)
    ready = threading.Event()
    stop: list[asyncio.Event] = []

    async def main() -> None:
        server = await asyncio.start_server(proxy._client, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        proxy._loop = asyncio.get_running_loop()
        stop.append(asyncio.Event())
        ready.set()
        await stop[0].wait()
        server.close()
        proxy._abort_all()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait(10)
    yield proxy
    proxy._call(stop[0].set)
    thread.join(10)
