"""The smallest backend that keeps the contract, as somebody else might write it: the network is its input, reshaped."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from edgeinfer.config.card import Model
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.types import Image, Letterbox, TensorSpec


class Options(Struct, frozen=True, kw_only=True):
    slots: int = 3


def open(model: Model, max_batch: int | None, options: Options) -> Plain:  # noqa: A001 (the plugin interface)
    return Plain(model, max_batch, options)


class Plain:
    """See `Backend`. Nothing is done before `collect` asks for it, and nothing while `held`."""

    name, detail = "plain", "the input, reshaped"

    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        card = model.card.input
        self.max_batch = self.lane_depth = max_batch or model.card.max_batch
        self.slots, self.versions = options.slots, {"plain": "1"}
        rows = 3 * card.height * card.width // 4
        self.output_specs = [TensorSpec(name, (-1, rows, 4), "float32") for name in ("boxes", "scores")]
        self.held, self.broken = False, dict[str, Exception]()
        self._free = [Slot() for _ in range(options.slots)]
        self._inputs = {
            id(slot): np.empty((self.max_batch, 3, card.height, card.width), np.float32) for slot in self._free
        }
        self._preprocess = Preprocessor(card)
        self._in_flight: deque[Slot] = deque()

    def prepare(self, wanted: Filter | None) -> None:
        pass

    def acquire(self) -> Slot | None:
        return self._free.pop() if self._free else None

    def load(self, slot: Slot, images: Sequence[Image]) -> Sequence[Letterbox]:
        slot.count = len(images)
        return [self._preprocess(image, out) for image, out in zip(images, self._inputs[id(slot)], strict=False)]

    def submit(self, slot: Slot) -> None:
        self._fail("submit")
        self._in_flight.append(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        if not self._in_flight or self.held:
            return None
        slot = self._in_flight.popleft()
        try:
            self._fail("collect")
        except Exception:
            self._free.append(slot)
            raise
        rows = self._inputs[id(slot)][: slot.count].reshape(slot.count, -1, 4)
        slot.outputs = {"boxes": rows, "scores": rows}
        return slot

    def release(self, slot: Slot) -> None:
        slot.outputs = {}
        self._free.append(slot)

    def close(self) -> None:
        self._in_flight.clear()

    def _fail(self, where: str) -> None:
        if where in self.broken:
            raise self.broken.pop(where)
