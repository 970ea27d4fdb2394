"""A viewer as a program has it, and a daemon that is nothing but what it publishes."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from websockets.sync.client import ClientConnection, connect

from edgeinfer.web.viewing.gallery import Gallery
from tests.web.showing import detections, info, result, status

WAIT_S = 30.0


class HasPort(Protocol):
    """A site of this process, or a daemon."""

    port: int


class Seen(NamedTuple):
    """One message of the live view."""

    header: dict[str, Any]
    jpeg: bytes

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def source(self) -> str:
        return str(self.header["source"])


class Viewer:
    """Draws what comes, if it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def next(self, timeout_s: float = WAIT_S) -> Seen:
        """The next message. Raises TimeoutError, ConnectionClosed."""
        data = self.connection.recv(timeout_s)
        assert isinstance(data, bytes)
        (length,) = struct.unpack_from("<I", data)
        return Seen(json.loads(data[4 : 4 + length]), data[4 + length :])

    def until(self, kind: str, **fields: Any) -> Seen:
        """The next message like this; pictures on the way are drawn."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            seen = self.next()
            if seen.kind == kind and all(seen.header[name] == value for name, value in fields.items()):
                return seen
            if seen.kind == "detections":
                self.drawn()
        raise AssertionError(f"no {kind} with {fields}")

    def picture(self) -> Seen:
        """The next picture, drawn."""
        seen = self.until("detections")
        self.drawn()
        return seen

    def say(self, **words: Any) -> None:
        """Sends a message."""
        self.connection.send(json.dumps(words))

    def drawn(self, count: int = 1) -> None:
        """Gives credits back."""
        self.say(drawn=int(count))


@contextmanager
def viewing(site: HasPort, query: str = "", **given: Any) -> Iterator[Viewer]:
    """Somebody who looks."""
    url = f"ws://127.0.0.1:{site.port}/live{query and '?' + query}"
    own = socket.create_connection(("127.0.0.1", site.port))  # whatever the environment says of proxies
    with connect(url, sock=own, max_size=None, compression=None, **given) as connection:
        yield Viewer(connection)


class Publishing(threading.Thread):
    """Publishes pictures of some sources one after the other, from its making until `end`."""

    def __init__(self, gallery: Gallery, *sources: str, period_s: float = 0.005) -> None:
        super().__init__(daemon=True)
        self.gallery, self.sources, self.number = gallery, sources, 0
        self._period_s, self._ended = period_s, threading.Event()
        gallery.write(info(*sources), None)
        for source in sources:
            gallery.write(status(source), None)
        self.start()

    def run(self) -> None:
        """The thread's life."""
        while not self._ended.wait(self._period_s):
            for source in self.sources:
                self.gallery.write(detections(source, self.number), result(source, number=self.number))
            self.gallery.service()
            self.number += 1

    def end(self) -> None:
        """No more."""
        self._ended.set()
        self.join()


@contextmanager
def publishing(gallery: Gallery, *sources: str, period_s: float = 0.005) -> Iterator[Publishing]:
    """See `Publishing`."""
    made = Publishing(gallery, *sources, period_s=period_s)
    try:
        yield made
    finally:
        made.end()
