"""The site on a thread of its own, gone at once when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from typing import Any

import uvicorn

from edgeinfer.guard.limits import MAX_REQUEST_BYTES, MAX_WS_MESSAGE_BYTES
from edgeinfer.web.server import listen
from edgeinfer.web.site.app import application
from edgeinfer.web.site.door import Door
from edgeinfer.web.site.views import Views

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 5
STOP_S = 2.0
"""So long what is going on at the end has to notice."""
LIBRARY_LOGS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")
"""They tell of every peer that behaves oddly; what fails here says so itself."""


class Site:
    """Serves the page and the API from `start` to `stop`."""

    def __init__(self, host: str, port: int, views: Views, tls: ssl.SSLContext | None = None) -> None:
        """Binds. Raises TemporaryError where the port is taken, ConfigError where the address can't be used."""
        self._listener = listen(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._access = views.access
        self._access.port = self.port
        self._config, self._tls = _config(views), tls
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_odd)
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Answers from now on."""
        self._access.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends it, with the connections that are open."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ends by itself just now
                self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(STOP_S)
        elif not self._loop.is_closed():
            self._close()
        self._access.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            log.exception("http: unexpected error; nothing is answered any more")
        finally:
            self._close()

    async def _serve(self) -> None:
        door = Door(self._listener, self._config, self._tls)
        door.open()
        try:
            await self._ending.wait()
        finally:
            door.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_S / 2)

    def _close(self) -> None:
        self._listener.close()
        self._loop.close()


def _config(views: Views) -> uvicorn.Config:
    for name in LIBRARY_LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
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
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=MAX_REQUEST_BYTES,
        ws_max_size=MAX_WS_MESSAGE_BYTES,
        ws_per_message_deflate=False,
    )
    config.load()
    return config


def _odd(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop has caught: mostly a peer that broke off in the middle of something."""
    error = context.get("exception")
    if isinstance(error, OSError) or error is None:
        log.debug("http: %s", context.get("message"), exc_info=error)
    else:
        log.error("http: %s", context.get("message"), exc_info=error)
