"""Pictures → JPEG, on one thread: each is made once for all who want it, and none that nobody asked for."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from edgeinfer.errors import EdgeinferError, InputError, OutOfMemoryError, StalledError
from edgeinfer.frames import at_once
from edgeinfer.guard.limits import MAX_KEPT_JPEGS
from edgeinfer.guard.rate import RationedLog
from edgeinfer.messages import DetectionsMessage, Message, encode
from edgeinfer.pictures.drawing import annotate
from edgeinfer.pictures.showing import Shrinker, jpeg
from edgeinfer.types import Image
from edgeinfer.web.viewing.gallery import Shot

log = logging.getLogger(__name__)

IDLE_S = 3.0
"""So long made pictures are kept while no others are asked for."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a picture of a source is wanted."""

    source: str
    width: int
    boxes: bool = False


@dataclass(frozen=True)
class Encoded:
    """A picture as a JPEG, and what was found in it; empty where it could not be made, and `why`.

    The picture that it was made of is let go: its memory is a decoder's. `mark` names it, see `Shot`.
    """

    message: DetectionsMessage
    mark: int
    jpeg: bytes
    why: str = ""

    @cached_property
    def framed(self) -> bytes:
        """As the live view sends it; the same bytes for everybody."""
        return framed(self.message, self.jpeg)


Then = Callable[[Encoded], None]


@dataclass(slots=True)
class _Job:
    shot: Shot
    then: list[Then] = field(default_factory=list)


def framed(message: Message, picture: bytes = b"") -> bytes:
    """A message of the live view: the header's length, the header, the picture."""
    header = encode(message)
    return struct.pack("<I", len(header)) + header + picture


class Encoder:
    """Thread-safe. What is asked for is made one after the other; of each form only the newest that was asked for.

    `made` counts the pictures. The thread is there while pictures are asked for.
    """

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()
        self._asked = threading.Condition(self._lock)
        self._waiting: dict[Form, _Job] = {}
        self._working: tuple[Form, _Job] | None = None
        self._kept: dict[Form, Encoded] = {}  # the one made last at the end
        self._thread: threading.Thread | None = None
        self._closed = False
        self._shrinker = Shrinker()
        self._rationed = RationedLog(log)

    def ask(self, shot: Shot, form: Form, then: Then) -> None:
        """Has `then` called with the picture, or a newer one of this form, from any thread; it may not wait or fail."""
        with self._lock:
            kept = self._kept.get(form)
            if kept is None or kept.message is not shot.message:
                self._queue(shot, form, then)
                return
        then(kept)

    def close(self) -> None:
        """Lets the thread end. What was asked for and not begun is never made."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._asked.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _queue(self, shot: Shot, form: Form, then: Then) -> None:
        if self._closed:
            return
        if self._working is not None and self._working[0] == form and self._working[1].shot is shot:
            self._working[1].then.append(then)
            return
        job = self._waiting.setdefault(form, _Job(shot))
        job.then.append(then)
        if shot.mark > job.shot.mark:
            job.shot = shot
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="encoding", daemon=True)
            thread.start()
            self._thread = thread
        self._asked.notify()

    def _run(self) -> None:
        while self._next():
            self._work()

    def _next(self) -> bool:
        """Waits for something to do; false where there was nothing for long. The thread ends then, under the lock."""
        with self._lock:
            if not self._waiting and not self._closed:
                self._asked.wait(IDLE_S)
            if not self._waiting:
                self._kept.clear()
                self._shrinker.forget()
                self._thread = None
                return False
            form = next(iter(self._waiting))
            self._working = form, self._waiting.pop(form)
            return True

    def _work(self) -> None:
        assert self._working is not None  # noqa: S101 (see `_next`)
        form, job = self._working
        encoded = self._encoded(job.shot, form)
        with self._lock:
            self._working = None
            self._keep(form, encoded)
        for then in job.then:
            then(encoded)

    def _keep(self, form: Form, encoded: Encoded) -> None:
        self._kept.pop(form, None)
        if encoded.jpeg:
            self.made += 1
            self._kept[form] = encoded
        while len(self._kept) > MAX_KEPT_JPEGS:
            del self._kept[next(iter(self._kept))]

    def _encoded(self, shot: Shot, form: Form) -> Encoded:
        try:
            return Encoded(shot.message, shot.mark, jpeg(self._drawn(shot, form)))
        except (StalledError, OutOfMemoryError, InputError, MemoryError) as error:
            why = error.message if isinstance(error, EdgeinferError) else "there is no memory for the picture"
            self._rationed.warning("pictures", "source %s: not shown: %s", form.source, why)
        except Exception as error:  # one picture's; the thread serves all viewers
            why = "the picture could not be made; the daemon's log says why"
            self._rationed.warning("failures", "source %s: not shown: %r", form.source, error)
        return Encoded(shot.message, shot.mark, b"", why)

    def _drawn(self, shot: Shot, form: Form) -> Image:
        """The picture in its form, made now or not at all: frames are for the data path first."""
        with at_once():
            image = self._shrinker.reduced(shot.picture, form.width)
        if not form.boxes:
            return image
        return annotate(image, shot.message.detections, image.shape[1] / max(1, shot.message.width))
