"""A TensorRT engine at work: an execution context, a stream and buffers per slot, all made once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from edgeinfer.backends._engine import LoadedEngine
from edgeinfer.backends._lane import ContextSlot, LaneMaker, NotStartedError
from edgeinfer.backends._loading import DeviceLoader
from edgeinfer.config.card import InputCard
from edgeinfer.cuda.status import error_from_text
from edgeinfer.engine.store.probation import Probation
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.errors import FatalError, OutOfMemoryError
from edgeinfer.gpu.cuda import Cuda, sharpen_timer
from edgeinfer.gpu.patience import PATIENCE
from edgeinfer.interfaces import Filter, Slot
from edgeinfer.types import Letterbox, Picture, Surface, TensorSpec


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is run. `label` ends the backend's name.

    `dla_core`: of an engine with parts on a DLA. `note`: what else there is to know of the engine, for `detail`.
    `singles`: whether single pictures are run on a profile of their own where the engine has one.
    """

    max_batch: int
    streams: int
    spin: bool
    graphs: bool
    gpu_preprocess: bool
    plugins: tuple[str, ...]
    label: str
    dla_core: int | None = None
    note: str = ""
    singles: bool = True


class TensorRt:
    """See `Backend`. Used by one thread; CUDA calls release the interpreter."""

    def __init__(
        self, kit: Toolkit, plan: bytes, card: InputCard, settings: Settings, probation: Probation | None
    ) -> None:
        self._settings, self._probation = settings, probation
        self.engine_key = probation.key if probation else ""
        cuda = Cuda()
        self._engine = LoadedEngine(kit, plan, card, settings.max_batch, settings.plugins, settings.dla_core)
        self._maker = LaneMaker(cuda, card, settings.gpu_preprocess)
        made = (self._engine.context(cuda) for _ in range(settings.streams + 1))
        self._lanes = [self._maker.lane(network) for network in made if network is not None]
        networks = [lane.network for lane in self._lanes] if settings.singles else []
        for lane, network in zip(self._lanes, self._engine.with_singles(cuda, networks), strict=False):
            lane.network = network  # after all else, as it is no need
        self._free = list(self._lanes)
        self._in_flight: deque[ContextSlot] = deque()
        self._wanted: Filter | None = None
        self.batches: Sequence[int] = self._engine.batches
        self.max_batch = self.lane_depth = self._engine.max_batch
        self.output_specs: Sequence[TensorSpec] = self._engine.outputs
        self.slots = len(self._lanes)
        self.name = f"{kit.flavour.replace('_', '-')}-{settings.label}"
        self.versions = {kit.flavour: ".".join(map(str, kit.version))}
        self.detail = ""

    def prepare(self, wanted: Filter | None) -> None:
        """See `Backend.prepare`. Runs every context, and captures the graphs: now it is known what they hold."""
        if self._wanted is not None and wanted is not None and self._wanted.reads == wanted.reads:
            self._set_score(wanted)
            return
        self._wanted, filtering = wanted, False
        sizes = self.batches
        for lane in self._free:
            filtering = self._maker.choose(lane, wanted)
            for size in sizes:
                lane.run(size)  # the first run does lazy work, which no frame should wait for
                lane.finish()
        if wanted is not None:
            self._set_score(wanted)
        captured = self._settings.graphs and all(lane.capture(size) for lane in self._free for size in sizes)
        if not captured:
            for lane in self._free:
                lane.forget_graphs()
        self.detail = ", ".join(
            [
                f"{self.slots} execution contexts",
                f"batches up to {self.max_batch}",
                "CUDA graphs" if captured else "no CUDA graphs",
                f"preprocessing on the {'GPU' if self._maker.kernels else 'CPU'}",
                f"candidates chosen on the {'GPU' if filtering else 'CPU'}",
                *filter(None, [self._settings.note]),
            ]
        )

    def profile_of(self, batch: int) -> str:
        """See `LoadedEngine.profile_of`."""
        return self._engine.profile_of(batch)

    def acquire(self) -> Slot | None:
        """See `Backend.acquire`."""
        return self._free.pop() if self._free else None

    def takes(self, surface: Surface) -> bool:
        """See `TakesSurfaces`. All lanes are alike."""
        return self._lanes[0].loader.takes(surface)

    def load(self, slot: Slot, pictures: Sequence[Picture]) -> Sequence[Letterbox]:
        """See `Backend.load`."""
        lane = _lane(slot)
        lane.count, lane.pictures = len(pictures), pictures
        return lane.loader.load(pictures, lane.stream)

    def submit(self, slot: Slot) -> None:
        """See `Backend.submit`."""
        lane = _lane(slot)
        try:
            lane.run(next(size for size in self.batches if size >= lane.count))
        except NotStartedError as error:
            words = self._engine.last_words
            raise error_from_text(f"{error.message}: {words}", words) from None
        lane.submitted_s = time.monotonic()
        self._in_flight.append(lane)

    def collect(self, timeout_s: float) -> Slot | None:
        """See `Backend.collect`. Raises FatalError for a batch that takes longer than `GpuPatience` has."""
        if not self._in_flight:
            return None
        sharpen_timer()
        lane = self._in_flight[0]
        try:
            if not self._finished(lane, timeout_s):
                return None
            lane.outputs, lane.candidates = lane.reader.read(lane.count)
        except OutOfMemoryError:
            self.release(self._in_flight.popleft())
            raise
        self._in_flight.popleft()
        lane.infer_ms = (time.monotonic() - lane.submitted_s) * 1e3
        if self._probation is not None:
            self._probation.tick()
        return lane

    def release(self, slot: Slot) -> None:
        """See `Backend.release`."""
        lane = _lane(slot)
        lane.outputs, lane.candidates, lane.pictures = {}, None, ()
        self._free.append(lane)

    def close(self) -> None:
        """See `Backend.close`. Contexts go before the engine, the engine before its runtime."""
        while self._in_flight:
            with suppress(OutOfMemoryError):  # a result that nobody waits for
                slot = self.collect(PATIENCE.deadline_s())
                if slot is not None:
                    self.release(slot)
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._free.clear()
        self._maker.close()
        self._engine.close()
        if self._probation is not None:
            self._probation.pass_()

    def blame(self) -> None:
        """The engine has failed, or the process is about to end because of it. From any thread; touches no CUDA."""
        if self._probation is not None:
            self._probation.blame()

    def _finished(self, lane: ContextSlot, timeout_s: float) -> bool:
        if lane.wait(timeout_s, self._settings.spin):
            return True
        deadline_s = PATIENCE.deadline_s()
        if time.monotonic() - lane.submitted_s > deadline_s:
            raise FatalError(f"the GPU has not finished a batch within {deadline_s:.0f} s", "see dmesg, then restart")
        return False

    def _set_score(self, wanted: Filter) -> None:
        """From the next batch on."""
        for lane in self._lanes:
            if isinstance(lane.loader, DeviceLoader):
                lane.loader.expect(wanted.score)


def _lane(slot: Slot) -> ContextSlot:
    assert isinstance(slot, ContextSlot)  # noqa: S101 (slots come back to the backend that lent them)
    return slot
