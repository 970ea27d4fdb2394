"""Who can reach an address: this machine alone, or others too."""

from __future__ import annotations

import socket
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`.

    A name proves nothing, because it may resolve to something else the next time; `localhost` counts where it
    resolves to loopback addresses alone.
    """
    if host == "localhost":
        return _resolves_to_loopback(host)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _resolves_to_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
