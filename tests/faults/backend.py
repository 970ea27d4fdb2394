"""A real backend that goes wrong after so many batches: hangs in a call, never finishes a batch, or loses its GPU."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Literal

from msgspec import Struct

from edgeinfer.backends import onnxruntime
from edgeinfer.config.card import Model
from edgeinfer.cuda import status as cudastatus
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.probation import Probation
from edgeinfer.interfaces import Slot


class Options(Struct, frozen=True, kw_only=True):
    """`fault` happens after so many batches. `start_s`: how long opening takes. `room`: the largest batch that fits.
    `cache`: the fault is that of the engine in this engine cache; without the engine all is well."""

    fault: Literal["none", "submit", "never", "cuda", "gil", "oom"] = "none"
    after: int = 5
    code: int = 700
    room: int = 0
    start_s: float = 0.0
    cache: str = ""


def open(model: Model, max_batch: int | None, options: Options) -> Faulty:  # noqa: A001 (the plugin interface)
    time.sleep(options.start_s)
    return Faulty(model, max_batch, options)


class Faulty(onnxruntime.OnnxRuntime):
    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        super().__init__(model, max_batch, onnxruntime.Options(threads=1, streams=1))
        self._fault, self._left = options, options.after
        self._probation: Probation | None = None
        if options.cache:
            self._load_engine(Cache(Path(options.cache)))

    @property
    def engine_key(self) -> str:
        return self._probation.key if self._probation else ""

    def blame(self) -> None:
        if self._probation is not None:
            self._probation.blame()

    def close(self) -> None:
        super().close()
        if self._probation is not None:
            self._probation.pass_()

    def _load_engine(self, cache: Cache) -> None:
        (entry,) = cache.entries() or (None,)
        engine = cache.usable(entry.key) if entry else None
        if engine is None:
            self._fault = Options()
        else:
            self._probation = Probation(cache, engine)

    def submit(self, slot: Slot) -> None:
        self._left -= 1
        if self._left < 0 and self._fault.fault == "submit":
            ctypes.CDLL(None).pause()  # in C, without the interpreter: what a driver does
        if self._left < 0 and self._fault.fault == "gil":
            ctypes.PyDLL(None).pause()  # with the interpreter: no other thread runs any more
        if self._left < 0 and self._fault.fault == "cuda":
            raise cudastatus.error_of("cudaEventQuery", self._fault.code, "cudaErrorIllegalAddress")
        if self._fault.fault == "oom" and slot.count > self._fault.room:
            raise cudastatus.error_of("cudaMalloc", cudastatus.OUT_OF_MEMORY, "cudaErrorMemoryAllocation")
        super().submit(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        if self._left < 0 and self._fault.fault == "never":
            time.sleep(timeout_s)
            return None
        return super().collect(timeout_s)
