"""The child in which a network is loaded and run once before the daemon loads it: it may swell, hang or crash here.

python -c "from edgeinfer.backends._trial_child import main; main()": one request from standard input, one report to
standard output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from edgeinfer.backends._session import SessionSettings, open_session, specs_of
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, is_lack_of_memory
from edgeinfer.guard.confine import confine, die_with
from edgeinfer.types import TensorSpec

MEMORY, REFUSED, FAILED = "memory", "refused", "failed"


class Feed(Struct, frozen=True, kw_only=True):
    """The input that is fed: float32 [batch, 3, height, width], or the network's own batch where that is fixed."""

    name: str
    batch: int
    height: int
    width: int


class TrialRequest(Struct, frozen=True, kw_only=True):
    """What is tried. `path` is absolute. `feed` None: it is only loaded.

    memory_bytes, cpu_s: see `confine`.
    """

    path: str
    session: SessionSettings
    feed: Feed | None
    parent: int
    memory_bytes: int
    cpu_s: int


class TrialReport(Struct, frozen=True, kw_only=True):
    """How it went. `failure`: MEMORY, REFUSED (by ONNX Runtime, with its reason) or FAILED in the run; "" for well."""

    failure: str = ""
    text: str = ""
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    peak_bytes: int = 0


def main() -> None:
    """Entry point of the child."""
    answers = os.dup(1)
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=TrialRequest)
    die_with(request.parent)
    with contextlib.suppress(OSError):
        os.nice(10)
    confine(request.memory_bytes, parent=request.parent, cpu_s=request.cpu_s, file_bytes=0, descriptors=256)
    try:
        report = _tried(request)
    except OutOfMemoryError:
        report = TrialReport(failure=MEMORY)
    except EdgeinferError as error:
        report = TrialReport(failure=REFUSED, text=error.message)
    except BaseException as error:
        report = TrialReport(failure=MEMORY if isinstance(error, MemoryError) else FAILED, text=str(error)[:500])
    os.write(answers, msgspec.json.encode(report))
    os._exit(0)  # to free gigabytes in order takes its time, and may hang


def _tried(request: TrialRequest) -> TrialReport:
    session = open_session(Path(request.path), request.session)
    inputs, outputs = specs_of(session.get_inputs()), specs_of(session.get_outputs())
    if request.feed is not None and fits(request.feed, inputs):
        try:
            _run(session, request.feed, inputs[0])
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base
            return TrialReport(failure=MEMORY if is_lack_of_memory(error) else FAILED, text=str(error)[:500])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return TrialReport(inputs=inputs, outputs=outputs, peak_bytes=peak)


def fits(feed: Feed, inputs: list[TensorSpec]) -> bool:
    """Whether the network takes it. Where not the daemon says so: loading it is safe by then."""
    if len(inputs) != 1 or inputs[0].name != feed.name or inputs[0].dtype != "tensor(float)":
        return False
    wanted, shape = (3, feed.height, feed.width), inputs[0].shape
    return len(shape) == 4 and all(d in (-1, w) for d, w in zip(shape[1:], wanted, strict=True))


def _run(session: Any, feed: Feed, spec: TensorSpec) -> None:
    batch = spec.shape[0] if spec.shape[0] > 0 else feed.batch
    for count in {1, batch} if spec.shape[0] <= 0 else {batch}:
        zeros = np.zeros((count, 3, feed.height, feed.width), np.float32)
        zeros.fill(0)  # touched, as frames will: memory that nobody touched is not there
        session.run(None, {spec.name: zeros})
