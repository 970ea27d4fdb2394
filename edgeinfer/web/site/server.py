"""The site on a thread of its own: uvicorn, bounded, and gone at once when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from edgeinfer.guard.limits import MAX_HTTP_PEERS, MAX_REQUEST_BYTES, MAX_WS_MESSAGE_BYTES
from edgeinfer.web.server import listen
from edgeinfer.web.site.app import application
from edgeinfer.web.site.views import Views

log = logging.getLogger(__name__)

APART_THREADS = 3
"""For what may block: files that are read, reloads that are waited for."""
STOP_S = 5.0
LIBRARY_LOGS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class Site:
    """Serves the page and the API from `start` to `stop`."""

    def __init__(self, host: str, port: int, views: Views, tls: ssl.SSLContext | None = None) -> None:
        """Binds. Raises TemporaryError where the port is taken, ConfigError where the address can't be used."""
        self._listener = listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        config = uvicorn.Config(
            application(views),
            loop="asyncio",
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=MAX_HTTP_PEERS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=0,
            h11_max_incomplete_event_size=MAX_REQUEST_BYTES,
            ws_max_size=MAX_WS_MESSAGE_BYTES,
            ws_per_message_deflate=False,
        )
        for name in LIBRARY_LOGS:  # what it does is no news, what fails is
            logging.getLogger(name).setLevel(logging.WARNING)
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, with the connections that are open."""
        if self._thread.is_alive():
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(STOP_S)
        with contextlib.suppress(OSError):
            self._listener.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("http: unexpected error; nothing is answered any more")

    async def _serve(self) -> None:
        with ThreadPoolExecutor(APART_THREADS, thread_name_prefix="http-apart") as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            await self._server.serve(sockets=[self._listener])
