"""INT8 calibration by TensorRT itself, up to 10.x."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeinfer.engine.build.precision import CALIBRATORS
from edgeinfer.engine.build.samples import Sample
from edgeinfer.types import AnyArray


class DeviceMemory(Protocol):
    """Copies arrays to the device and keeps them there."""

    def upload(self, name: str, array: AnyArray) -> int:
        """Device address of a copy of `array`; valid until the next upload under the same name."""


def make_calibrator(
    trt: Any, kind: str, samples: Iterator[Sample], batch: int, memory: DeviceMemory, cache: Path | None
) -> Any:
    """A calibrator that feeds `samples`, each of batch size `batch`, unless `cache` holds its result already.

    `cache` is written when TensorRT is done; its name must stand for the data, the method and the TensorRT version.
    """
    base: Any = getattr(trt, CALIBRATORS[kind])

    class Calibrator(base):  # type: ignore[misc]  # a base class known only at run time
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: list[str]) -> list[int] | None:
            sample = next(samples, None)
            return (
                None if sample is None else [memory.upload(name, np.ascontiguousarray(sample[name])) for name in names]
            )

        def read_calibration_cache(self) -> bytes | None:
            return cache.read_bytes() if cache is not None and cache.exists() else None

        def write_calibration_cache(self, data: Any) -> None:
            if cache is not None:
                replace(cache, bytes(data))

    return Calibrator()


def replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. Losing it costs time only, so that a full disk is no error here."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
