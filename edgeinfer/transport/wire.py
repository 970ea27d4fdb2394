"""A connection of libzmq's, by its file descriptor, as the kernel knows it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from edgeinfer.guard.scarcity import is_scarce

_BYTES_RECEIVED = 128
"""Where struct tcp_info (linux/tcp.h, since Linux 4.2) has tcpi_bytes_received, 64 bits."""
_DRAINED, _DRAINS = 64 << 10, 4
"""At most so many bytes, so many times."""


@contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket]:
    """The descriptor's connection, which stays open. Raises OSError where it is no socket any more.

    A duplicate, as libzmq may close the descriptor meanwhile and its number may be another file's; itself only where
    there is no descriptor left for a duplicate.
    """
    try:
        own = os.dup(descriptor)
    except OSError as error:
        if not is_scarce(error):
            raise
        lent = socket.socket(fileno=descriptor)
        try:
            yield lent
        finally:
            lent.detach()
        return
    try:
        connection = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    with connection:
        yield connection


def remote_address(descriptor: int) -> str:
    """The address at the other end, without its port; empty where it has none, or has gone."""
    with suppress(OSError), borrowed(descriptor) as connection:
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            return str(connection.getpeername()[0])
    return ""


def received_bytes(descriptor: int) -> int:
    """What has come in so far, from the first byte; over a Unix socket, what waits there. 0 where it has gone."""
    with suppress(OSError), borrowed(descriptor) as connection:
        if connection.family != socket.AF_UNIX:
            facts = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
            if len(facts) >= _BYTES_RECEIVED + 8:
                return int(struct.unpack_from("=Q", facts, _BYTES_RECEIVED)[0])
        waiting = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
        return int(struct.unpack("=i", waiting)[0])
    return 0


def cut(descriptor: int, endpoint: str) -> bool:
    """Ends the connection where it is one to `endpoint`, and no file or socket that came after it."""
    with suppress(OSError), borrowed(descriptor) as connection:
        if not _leads_to(connection, endpoint):
            return False
        connection.shutdown(socket.SHUT_RDWR)
        _drain(connection)
        return True
    return False


def _drain(connection: socket.socket) -> None:
    """What waits in the kernel would still be read after a shutdown."""
    discard = socket.MSG_DONTWAIT | (0 if connection.family == socket.AF_UNIX else socket.MSG_TRUNC)
    with suppress(OSError):
        for _ in range(_DRAINS):
            if not connection.recv(_DRAINED, discard):
                return


def _leads_to(connection: socket.socket, endpoint: str) -> bool:
    name = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return endpoint in (f"ipc://{name}", f"ipc://{os.fsdecode(name)}")
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return endpoint.startswith("tcp://") and endpoint.rpartition(":")[2] == str(name[1])
