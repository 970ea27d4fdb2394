"""Which web page a browser asks for: ours, or somebody else's that uses the user's browser as its hand.

A page elsewhere can have its own name point to this machine (DNS rebinding), send forms, load pictures and open
WebSockets. The Host header gives the first away, Origin and Sec-Fetch-Site the others; no page can forge them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_]|[a-z0-9_][a-z0-9._-]{0,251}[a-z0-9_])(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(.{1,300})")
_OURS = frozenset({"", "same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Place:
    """A host in lower case, an IPv6 address in its shortest form, and its port if one is written."""

    host: str
    port: int | None

    @property
    def is_local(self) -> bool:
        """Whether this names a machine by an address, or this one as localhost: never a name that resolves anywhere."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def place(text: str) -> Place | None:
    """`HOST`, `HOST:PORT`, `[IPv6]:PORT`; None for anything else: an account, a path, a zone, a dot at the end."""
    match = _HOST.fullmatch(text.lower())
    if match is None or int(match[2] or 0) > 65535:
        return None
    host = match[1]
    if host.startswith("["):
        try:
            host = str(IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return Place(host, None if match[2] is None else int(match[2]))


def is_local_host(header: str) -> bool:
    """Whether a request with this Host header may be for a server that only this machine reaches.

    The port is not looked at: a tunnel may have another. Without the header it was no browser.
    """
    found = place(header)
    return not header or (found is not None and found.is_local)


def is_same_origin(origin: str, host: str, scheme: str) -> bool:
    """Whether an Origin header names the server that a request to `host` over `scheme` has reached."""
    match, wanted = _ORIGIN.fullmatch(origin.lower()), place(host)
    if match is None or wanted is None or match[1] != scheme:
        return False
    found, usual = place(match[2]), DEFAULT_PORTS[scheme]
    return found is not None and (found.host, found.port or usual) == (wanted.host, wanted.port or usual)


def is_foreign_fetch(method: str, site: str, mode: str, destination: str) -> bool:
    """Whether the browser says (Sec-Fetch-Site, -Mode, -Dest) that a page of somebody else wants this.

    A link that the user follows is no such thing: it opens what it names in a window of its own.
    """
    followed = method in ("GET", "HEAD") and mode == "navigate" and destination == "document"
    return site not in _OURS and not followed
