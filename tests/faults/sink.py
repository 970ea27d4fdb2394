"""A sink whose write never returns, after so many messages."""

from __future__ import annotations

import ctypes

from msgspec import Struct

from edgeinfer.messages import Message
from edgeinfer.types import Result


class Options(Struct, frozen=True, kw_only=True):
    after: int = 20


def open(options: Options) -> Stuck:  # noqa: A001 (the plugin interface)
    return Stuck(options.after)


class Stuck:
    blocks = False

    def __init__(self, after: int) -> None:
        self._left = after

    def write(self, message: Message, result: Result | None) -> None:
        self._left -= 1
        if self._left < 0:
            ctypes.CDLL(None).pause()

    def service(self) -> None:
        pass

    def close(self) -> None:
        pass
