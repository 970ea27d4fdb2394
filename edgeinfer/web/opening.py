"""The page's server, imported when the configuration asks for a page and not before."""

from __future__ import annotations

import importlib
import ssl
from typing import Any, Protocol

from edgeinfer import recipe
from edgeinfer.errors import UnavailableError
from edgeinfer.web.site.views import Views

LIBRARIES = ("starlette", "uvicorn", "websockets", "anyio", "h11")


class HttpServer(Protocol):
    """The small server, or the site."""

    port: int

    def start(self) -> None:
        """Answers from now on."""

    def stop(self) -> None:
        """Ends it, with the connections that are open."""


def open_site(host: str, port: int, views: Views, tls: ssl.SSLContext | None = None) -> HttpServer:
    """Binds the page's server. Raises EdgeinferError: UnavailableError where a library that it needs is missing."""
    site: HttpServer = _module().Site(host, port, views, tls)
    return site


def _module() -> Any:
    try:
        return importlib.import_module("edgeinfer.web.site.server")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in LIBRARIES:
            raise
        raise UnavailableError(
            f"http.web: the page needs {missing!r}, which is not installed", recipe.pip("install 'edgeinfer[web]'")
        ) from error
