"""What runs the network: a file for each runtime, called as in the configuration's `backend`.

Below is what a backend's module has: `BackendModule` always, the others where its runtime can do that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from edgeinfer.config.card import Model
from edgeinfer.engine.build.progress import OnProgress
from edgeinfer.interfaces import Backend
from edgeinfer.types import AnyArray, Image


@runtime_checkable
class BackendModule(Protocol):
    """A backend plugin."""

    Options: type[Struct]

    def open(self, model: Model, max_batch: int | None, options: Any) -> Backend:
        """The backend, ready for `prepare`. `max_batch` None leaves the largest batch to it. Raises EdgeinferError."""


@runtime_checkable
class TriedBackendModule(Protocol):
    """One that runs networks which a stranger may have made, and tries them where they can do no harm."""

    def try_out(self, model: Model, max_batch: int | None, options: Any, cancel: threading.Event) -> None:
        """Before `open` with the same arguments. Raises EdgeinferError, soon after `cancel` is set too."""


@runtime_checkable
class ThriftyBackendModule(Protocol):
    """One that computes on the CPU, and can leave cores to the build of what will take over from it."""

    def thrifty(self, options: Any) -> Any:
        """The options for as long as something is built. What the user named stays as it is."""


class Prepared(Protocol):
    """What is to run, known before it can."""

    @property
    def cached(self) -> bool:
        """Whether `open` returns soon, because nothing has to be built."""

    def open(self, on_progress: OnProgress, cancel: threading.Event) -> Backend:
        """The backend; blocks for as long as a build takes. Raises EdgeinferError, soon after `cancel` is set too."""


@runtime_checkable
class StagedBackendModule(Protocol):
    """One whose runtime builds something first: it can say so, and be opened beside what serves meanwhile."""

    def prepare(self, model: Model, max_batch: int | None, options: Any) -> Prepared:
        """Finds out what is needed; builds nothing. Raises EdgeinferError."""


@runtime_checkable
class SweepingBackendModule(Protocol):
    """One that shows what its runtime does alone, for several streams and batches."""

    def raw_sweep(
        self, model: Model, max_batch: int | None, options: Any, images: Sequence[Image], seconds: float
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Frames per second by "STREAMSxBATCH", `seconds` for each, inputs and outputs staying on the device.

        And batch → what ran it, in words.
        """


@runtime_checkable
class RawBackendModule(Protocol):
    """One that shows what its runtime does alone, picture by picture."""

    def raw(self, model: Model, options: Any) -> Callable[[AnyArray], object]:
        """Runs the network on a (1, 3, H, W) float32 array, with nothing of ours around it."""
