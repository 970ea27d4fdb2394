"""Where HTTP listens, and what that asks for: whatever others can reach must be protected."""

from __future__ import annotations

from edgeinfer.config.settings import HttpConfig
from edgeinfer.errors import ConfigError
from edgeinfer.guard.reachability import is_loopback
from edgeinfer.web.access.rights import Access, open_access
from edgeinfer.web.server import parse_bind

PAGE_ONLY = ("token", "tls")


def check_http(http: HttpConfig) -> tuple[str, int]:
    """Host and port. Raises ConfigError where `bind` is none, or lacks what it needs there."""
    if not http.web:
        _refuse_what_protects_nothing(http)
        return parse_bind(http.bind, http.insecure)
    host, port = parse_bind(http.bind, insecure=True)  # said below, for the page
    if not is_loopback(host):
        _require(http)
    return host, port


def access_of(http: HttpConfig, host: str) -> Access:
    """Who may do what at the page. Raises InputError, ConfigError, TemporaryError where a file that says so is bad."""
    tls = None if http.tls is None else (http.tls.cert, http.tls.key)
    return open_access(is_loopback(host), http.token, tls)


def _refuse_what_protects_nothing(http: HttpConfig) -> None:
    for key in PAGE_ONLY:
        if getattr(http, key) is not None:
            raise ConfigError(
                f"http.{key}: only the page has it, and none is served",
                "write web: true under http, or leave it out; health and metrics go without",
            )


def _require(http: HttpConfig) -> None:
    """`insecure` says nothing here: pictures are more than numbers."""
    needs = f"http.bind: {http.bind} can be reached from other machines, and the page shows them what the cameras see"
    if http.token is None:
        raise ConfigError(needs, "write token: FILE under http; edgeinfer web token new --file FILE makes one")
    if http.tls is None:
        raise ConfigError(needs, "write tls: {cert: FILE, key: FILE} under http, so that nobody reads along")
