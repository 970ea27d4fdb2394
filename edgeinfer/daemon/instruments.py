"""What looks at a daemon from the side: the machine's sensors, and the HTTP server of health, metrics and the page."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeinfer.config.settings import HttpConfig
from edgeinfer.flow.statistics import Statistics
from edgeinfer.interfaces import Sink
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.governor import Governor
from edgeinfer.telemetry.sampler import Sampler
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web import pages
from edgeinfer.web.access.rights import Access
from edgeinfer.web.binding import access_of, check_http
from edgeinfer.web.opening import HttpServer, open_site
from edgeinfer.web.server import Server
from edgeinfer.web.site.views import Views
from edgeinfer.web.viewing.desk import ConfigDesk, NoDesk
from edgeinfer.web.viewing.model import ModelView


@dataclass(frozen=True, slots=True)
class Shown:
    """What an HTTP server shows of a daemon. The last three only the page asks for."""

    picture: Callable[[], DaemonSnapshot]
    stats: Statistics
    session: str
    model: Callable[[], ModelView]
    desk: ConfigDesk = field(default_factory=NoDesk)


EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (looked for, not bound)


class Instruments:
    """They read what the stages keep anyway, and never make one wait."""

    def __init__(self, shown: Shown, bulletin: Bulletin, http: HttpConfig | None, root: Path) -> None:
        """Binds the HTTP port. Raises EdgeinferError. `root` is where /sys and /proc are."""
        self.governor = Governor()
        self.sampler = Sampler(root, self.governor, bulletin)
        self.sinks: Mapping[str, Sink] = {}
        self._server: HttpServer | None = None
        self.page = ""
        if http is not None:
            host, port = check_http(http)
            self._server = self._site(shown, http, host, port) if http.web else _small(shown, http, host, port)

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

    def _site(self, shown: Shown, http: HttpConfig, host: str, port: int) -> HttpServer:
        access = access_of(http, host)
        views = _views(shown, http, access)
        self.sinks = {
            "web.latched": views.latched,
            "web.chronicle": views.chronicle,
            "web.history": views.history,
            "web.gallery": views.gallery,
        }
        server = open_site(host, port, views, access.certificate.context if access.certificate else None)
        self.page = page_address(host, server.port, http.tls is not None)
        return server


def page_address(host: str, port: int, secure: bool) -> str:
    """What people type. An address that stands for all is no address: the machine's name is one."""
    if host in EVERYWHERE:
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{name}:{port}/"


def _small(shown: Shown, http: HttpConfig, host: str, port: int) -> HttpServer:
    return Server(host, port, pages.routes(shown.picture, shown.stats, http.ready_min_sources))


def _views(shown: Shown, http: HttpConfig, access: Access) -> Views:
    return Views(
        session=shown.session,
        picture=shown.picture,
        stats=shown.stats,
        model=shown.model,
        config=shown.desk,
        pages=pages.routes(shown.picture, shown.stats, http.ready_min_sources),
        access=access,
    )
