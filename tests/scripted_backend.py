"""A backend plugin for tests: ONNX Runtime that fails where and when it is told to, and remembers its instances."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from edgeinfer.backends import onnxruntime
from edgeinfer.config.card import Model
from edgeinfer.errors import FatalError, StickyError
from edgeinfer.interfaces import Slot

opened: list[Scripted] = []


class Options(Struct, frozen=True, kw_only=True):
    """Raises at batch number `fail_at` (from 0) of `submit` or `collect`; `name` is what it says it is."""

    fail_at: int | None = None
    where: Literal["submit", "collect"] = "submit"
    sticky: bool = False
    name: str = "scripted"


def open(model: Model, max_batch: int | None, options: Options) -> Scripted:  # noqa: A001 (the plugin interface)
    """See `Backend`."""
    opened.append(Scripted(model, max_batch, options))
    return opened[-1]


class Scripted(onnxruntime.OnnxRuntime):
    """See `Backend`."""

    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        super().__init__(model, max_batch, onnxruntime.Options(threads=1))
        self.name = options.name
        self.closed = 0
        self._options = options
        self._counts = {"submit": 0, "collect": 0}

    def submit(self, slot: Slot) -> None:
        """See `Backend.submit`."""
        self._act("submit")
        super().submit(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`."""
        if self._in_flight:
            slot = super().collect(timeout_s)
            if slot is not None:
                self._act("collect")
            return slot
        return None

    def close(self) -> None:
        """See `Backend.close`."""
        self.closed += 1
        super().close()

    def _act(self, where: str) -> None:
        number = self._counts[where]
        self._counts[where] += 1
        if where == self._options.where and number == self._options.fail_at:
            raise (StickyError if self._options.sticky else FatalError)(f"scripted failure in {where}")
