"""How a source's process and ours talk: JSON objects over a socket of packets, with descriptors beside them.

Ours speaks first: `open` once, then `read` for every picture. While it works on either, the other side may say `need`
and is answered with `lend`. Its answers are `opened`, `picture`, `packet`, `end` or `error`. The end of the socket is
the end of the talk for both. A `picture` is told with its kind, its block and its size (`portrait.py`); the bytes of a
`packet` follow in messages of their own.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from msgspec import DecodeError, json

MAX_BYTES = 1 << 16
_MAX_DESCRIPTORS = 4


class Gone(Exception):  # noqa: N818 (no failure of ours)
    """The other side has closed the talk, or its process has ended."""


class Nonsense(Exception):  # noqa: N818 (no failure of ours)
    """What the other side said makes no sense."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(peer: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Says something. Raises Gone; TimeoutError where nobody listens."""
    try:
        socket.send_fds(peer, [json.encode(message)], list(descriptors))
    except TimeoutError:
        raise
    except OSError as error:
        raise Gone from error


def receive(peer: socket.socket, timeout_s: float | None) -> tuple[dict[str, Any], list[int]]:
    """What the other side says next, with descriptors that the caller closes. `None` waits for ever.

    Raises Gone, Nonsense, and TimeoutError where nothing comes.
    """
    try:
        peer.settimeout(None if timeout_s is None else max(0.001, timeout_s))
        data, descriptors, _, _ = socket.recv_fds(peer, MAX_BYTES, _MAX_DESCRIPTORS)
    except TimeoutError:
        raise
    except OSError as error:
        raise Gone from error
    try:
        if not data:
            raise Gone
        message = json.decode(data)
        if not isinstance(message, dict):
            raise Nonsense(f"a {type(message).__name__}")
    except (DecodeError, ValueError, RecursionError):  # the first is a ValueError in newer versions
        close(descriptors)
        raise Nonsense("no JSON") from None
    except BaseException:
        close(descriptors)
        raise
    return message, descriptors


def send_bytes(peer: socket.socket, data: bytes) -> None:
    """Says what is no JSON, in as many messages as it takes. Raises what `send` does."""
    view = memoryview(data)
    try:
        for place in range(0, len(data), MAX_BYTES):
            peer.send(view[place : place + MAX_BYTES])
    except TimeoutError:
        raise
    except OSError as error:
        raise Gone from error


def receive_bytes(peer: socket.socket, size: int, timeout_s: float | None) -> bytes:
    """`size` bytes that were said so. Raises what `receive` does."""
    data, end = bytearray(size), None if timeout_s is None else time.monotonic() + timeout_s
    view, place = memoryview(data), 0
    try:
        while place < size:
            peer.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            came = peer.recv_into(view[place:])
            if came == 0:
                raise Gone
            place += came
    except TimeoutError:
        raise
    except OSError as error:
        raise Gone from error
    return bytes(data)


def whole(message: dict[str, Any], key: str, least: int, most: int) -> int:
    """A whole number of a message. Raises Nonsense where there is none."""
    value = message.get(key)
    if type(value) is not int or not least <= value <= most:
        raise Nonsense(f"{key} makes no sense")
    return value


def close(descriptors: list[int]) -> None:
    """Closes what nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)
