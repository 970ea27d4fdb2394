"""A real NOTIFY_SOCKET to listen at: a datagram socket, as systemd has one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


class NotifySocket:
    """Keeps what arrives, with the time. `address` is what goes into NOTIFY_SOCKET."""

    def __init__(self, path: Path | str) -> None:
        self.address = str(path)
        self.received: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def read(self, timeout_s: float = 0.0) -> list[dict[str, str]]:
        """Everything so far, after waiting at most `timeout_s` for one more message."""
        self._socket.settimeout(timeout_s or 0.001)
        try:
            while True:
                text = self._socket.recv(65536).decode()
                self.received.append((time.monotonic(), dict(line.split("=", 1) for line in text.splitlines())))
                self._socket.settimeout(0.001)
        except (TimeoutError, BlockingIOError):
            return [fields for _, fields in self.received]

    def wait_for(self, condition: Callable[[dict[str, str]], bool], what: str, timeout_s: float = 60) -> dict[str, str]:
        """The first message, past or future, that meets the condition."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for fields in self.read(0.1):
                if condition(fields):
                    return fields
        raise AssertionError(f"waited {timeout_s} s for {what}; received {[fields for _, fields in self.received]}")
