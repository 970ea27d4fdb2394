"""Results and books → messages. Everything is stamped as published now."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET, structs

from edgeinfer import __version__
from edgeinfer.messages import (
    DAEMON,
    Detection,
    DetectionsMessage,
    InfoMessage,
    ModelInfo,
    SinkVitals,
    StatusMessage,
    TimingMs,
    VideoDecoderInfo,
    Vitals,
)
from edgeinfer.telemetry.snapshot import DaemonSnapshot, SourceSnapshot
from edgeinfer.types import Result
from edgeinfer.watchdog.crash import boot_id


@dataclass(frozen=True, slots=True)
class Identity:
    """What the messages of a run say of it. `session` stays the same from its start to its end."""

    session: str
    model: ModelInfo
    sources: tuple[str, ...]
    t_start_ns: int

    @staticmethod
    def new(model: ModelInfo, sources: Sequence[str]) -> Identity:
        """A fresh session, starting now."""
        return Identity(uuid.uuid4().hex, model, tuple(sources), time.time_ns())


def info_message(identity: Identity, backend: str | None, versions: Mapping[str, str]) -> InfoMessage:
    """What the daemon is; `backend` None until the model is loaded."""
    return InfoMessage(
        source=DAEMON,
        session=identity.session,
        t_publish_ns=time.time_ns(),
        t_publish_mono_ns=time.monotonic_ns(),
        version=__version__,
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid=os.getpid(),
        t_start_ns=identity.t_start_ns,
        model=identity.model,
        backend=backend,
        versions={"edgeinfer": __version__, **versions},
        sources=list(identity.sources),
    )


def detections_message(result: Result, identity: Identity) -> DetectionsMessage:
    """The message for a result, published now."""
    capture, now_mono = result.frame.capture, time.monotonic_ns()
    timing, (width, height) = result.timing, capture.size
    return DetectionsMessage(
        source=result.frame.source,
        session=identity.session,
        t_publish_ns=time.time_ns(),
        t_publish_mono_ns=now_mono,
        seq=result.seq,
        frame_id=result.frame.frame_id,
        t_capture_ns=capture.t_ns,
        t_capture_mono_ns=capture.t_mono_ns,
        capture_clock=capture.clock,
        t_media_ns=UNSET if capture.t_media_ns is None else capture.t_media_ns,
        width=width,
        height=height,
        model=result.model.id,
        backend=result.backend,
        timing_ms=TimingMs(
            queue=round(timing.queue, 3),
            preprocess=round(timing.preprocess, 3),
            infer=round(timing.infer, 3),
            decode=round(timing.decode, 3),
            total=round((now_mono - capture.t_mono_ns) / 1e6, 3),
            receive=round(timing.receive, 3),
            wait=round(timing.wait, 3),
            publish=round(result.publish_ms(now_mono), 3),
        ),
        dropped=result.dropped,
        detections=detection_list(result, result.model.labels),
    )


def detection_list(result: Result, labels: Sequence[str]) -> list[Detection]:
    """Rounded to what a pixel and a score are worth: 0.001 px, 0.00001."""
    found = result.detections
    if not len(found):
        return []
    boxes = found.boxes.astype(np.float64).round(3).tolist()
    scores = found.scores.astype(np.float64).round(5).clip(0, 1).tolist()
    return [
        Detection(class_id, labels[class_id], score, tuple(box))
        for class_id, score, box in zip(found.class_ids.tolist(), scores, boxes, strict=True)
    ]


def status_message(source: str, books: SourceSnapshot, session: str) -> StatusMessage:
    """A source's status, published now."""
    return StatusMessage(
        source=source,
        session=session,
        t_publish_ns=time.time_ns(),
        t_publish_mono_ns=time.monotonic_ns(),
        state=books.state,
        reason=books.reason,
        captured=books.captured,
        inferred=books.inferred,
        in_flight=books.in_flight,
        dropped=sum(books.dropped.values()),
        dropped_by_reason=books.dropped,
        fps=round(books.fps, 2),
        stalls=books.stalls,
        reconnects=books.reconnects,
        decoder=UNSET if books.decoder is None else VideoDecoderInfo(name=books.decoder[0], why=books.decoder[1]),
    )


def daemon_status(
    books: SourceSnapshot, picture: DaemonSnapshot, facts: Mapping[str, object], session: str
) -> StatusMessage:
    """The status of the daemon as a whole: the sums, its vitals, and what it has noted of itself."""
    sinks = picture.sinks.items()
    vitals = Vitals(
        latency_ms={stage: dict(values) for stage, values in picture.latency_ms.items()},
        rate=picture.rate,
        subscribers=UNSET if picture.subscribers is None else picture.subscribers,
        machine=UNSET if picture.machine is None else picture.machine,
        sinks={name: SinkVitals(ok=not one.trouble, lost=one.lost, text=one.trouble) for name, one in sinks},
    )
    return structs.replace(status_message(DAEMON, books, session), vitals=vitals, **facts)
