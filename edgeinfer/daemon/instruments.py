"""What others may know of a running daemon: for its own status, for /healthz and /readyz, for /metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import UNSET, UnsetType

from edgeinfer.config.settings import HttpConfig
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.publisher import Publisher
from edgeinfer.flow.statistics import Statistics
from edgeinfer.messages import Reason, Vitals
from edgeinfer.telemetry.governor import Governor
from edgeinfer.telemetry.sampler import Sampler
from edgeinfer.web import pages
from edgeinfer.web.numbers import Numbers
from edgeinfer.web.readiness import Observation
from edgeinfer.web.server import Server, parse_bind

LAST_FRAMES = 1000


class Watch:
    """Looks at a daemon from the side: it reads what the stages keep anyway, and never makes one wait.

    `ledgers` and `stages` are asked for each time, because both may change while the daemon runs. A stage is a thread
    with an `error` that is None while all is well.
    """

    def __init__(
        self,
        publisher: Publisher,
        stats: Statistics,
        ledgers: Callable[[], Mapping[str, Ledger]],
        stages: Callable[[], Mapping[str, BaseException | None]],
        http: HttpConfig | None,
        root: Path = Path("/"),
    ) -> None:
        """Binds the HTTP port. Raises EdgeinferError. `root` is where /sys and /proc are."""
        self.governor = Governor()
        self.sampler = Sampler(root, self.governor, publisher.set_heat)
        self._publisher, self._stats = publisher, stats
        self._ledgers, self._stages = ledgers, stages
        self._turned_s = time.monotonic()
        self._server: Server | None = None
        if http is not None:
            host, port = parse_bind(http.bind, http.insecure)
            self._server = Server(host, port, pages.routes(self.observe, self.numbers, http.ready_min_sources))
        publisher.vitals = self.vitals

    @property
    def http_port(self) -> int | None:
        """Where the HTTP server listens, if it does."""
        return self._server.port if self._server else None

    def start(self) -> None:
        """Begins to read the sensors and to answer."""
        self.sampler.start()
        if self._server is not None:
            self._server.start()

    def stop(self) -> None:
        """Ends both; a sensor that hangs is not waited for."""
        self.sampler.close()
        if self._server is not None:
            self._server.stop()

    def turn(self) -> None:
        """The main loop has turned."""
        self._turned_s = time.monotonic()

    def observe(self) -> Observation:
        """The daemon's state. From any thread."""
        faults = [
            Reason(name, f"{type(error).__name__}: {error}")
            for name, error in self._stages().items()
            if error is not None
        ]
        return Observation(
            sources={name: ledger.snapshot() for name, ledger in self._ledgers().items()},
            backend=self._publisher.backend or "",
            bound="publish" not in self._publisher.failed_sinks,
            tick_age_s=time.monotonic() - self._turned_s,
            faults=faults,
        )

    def numbers(self) -> Numbers:
        """Everything that is counted. From any thread."""
        subscribers = self._publisher.subscribers
        return Numbers(
            sources={name: ledger.snapshot() for name, ledger in self._ledgers().items()},
            stages=self._stats.stages(),
            latency=self._stats.sources(),
            model=self._publisher.model_id,
            versions=self._publisher.versions,
            rate=self.governor.factor,
            subscribers=None if subscribers is UNSET else subscribers,
            machine=self.sampler.machine,
        )

    def vitals(self) -> Vitals:
        """What the daemon's own status says beside the sums. From any thread."""
        machine = self.sampler.machine
        subscribers: int | UnsetType = self._publisher.subscribers
        return Vitals(
            latency_ms=self._stats.percentiles(LAST_FRAMES),
            rate=self.governor.factor,
            subscribers=subscribers,
            machine=UNSET if machine is None else machine,
        )


def thread_errors(**threads: threading.Thread | None) -> dict[str, BaseException | None]:
    """Name → what ended that thread, None while it is well or not there."""
    return {name: getattr(thread, "error", None) for name, thread in threads.items()}
