"""What looks at a daemon from the side: the machine's sensors, and the HTTP server of health and metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeinfer.config.settings import HttpConfig
from edgeinfer.flow.statistics import Statistics
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.governor import Governor
from edgeinfer.telemetry.sampler import Sampler
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web import pages
from edgeinfer.web.server import Server, parse_bind


class Instruments:
    """They read what the stages keep anyway, and never make one wait."""

    def __init__(
        self,
        picture: Callable[[], DaemonSnapshot],
        stats: Statistics,
        bulletin: Bulletin,
        http: HttpConfig | None,
        root: Path,
    ) -> None:
        """Binds the HTTP port. Raises EdgeinferError. `root` is where /sys and /proc are."""
        self.governor = Governor()
        self.sampler = Sampler(root, self.governor, bulletin)
        self._server: Server | None = None
        if http is not None:
            host, port = parse_bind(http.bind, http.insecure)
            self._server = Server(host, port, pages.routes(picture, stats, http.ready_min_sources))

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
