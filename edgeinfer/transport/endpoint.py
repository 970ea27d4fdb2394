"""Where a daemon publishes and its subscribers look for it, and which places will do."""

from __future__ import annotations

import re

from edgeinfer.errors import ConfigError
from edgeinfer.guard.reachability import is_loopback

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
"""On loopback, where no other machine can reach it."""
MAX_IPC_PATH = 107
"""sun_path of a Unix socket holds 108 bytes with the final zero (unix(7))."""


def check_endpoint(endpoint: str, secured: bool) -> None:
    """Refuses what can't work or would be heard beyond this machine. Raises ConfigError."""
    if endpoint.startswith("ipc://"):
        if endpoint == "ipc://" or "\0" in endpoint:
            raise ConfigError.at(
                "publish.bind", f"{endpoint!r} names no path", "for instance ipc:///run/edgeinfer.sock"
            )
        if endpoint.startswith("ipc://@"):
            raise ConfigError.at(
                "publish.bind",
                f"{endpoint}: an abstract socket has no mode: everybody here could read it",
                "choose a path: for instance ipc:///run/edgeinfer.sock",
            )
        if len(endpoint.removeprefix("ipc://").encode()) > MAX_IPC_PATH:
            raise ConfigError.at(
                "publish.bind", f"{endpoint}: longer than {MAX_IPC_PATH} bytes", "choose a shorter path"
            )
        return
    match = re.fullmatch(r"tcp://(.+):(\d{1,5}|\*)", endpoint)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise ConfigError.at(
            "publish.bind",
            f"{endpoint!r} is not an endpoint",
            f"for instance {DEFAULT_ENDPOINT} or ipc:///run/edgeinfer.sock",
        )
    if not secured and reaches_out(endpoint):
        raise ConfigError.at(
            "publish.bind",
            f"{endpoint} can be reached from other machines, and nothing protects it there",
            "bind to 127.0.0.1, set up publish.curve (edgeinfer keys), or write insecure: true under publish",
        )


def reaches_out(endpoint: str) -> bool:
    """Whether other machines can reach the endpoint."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return endpoint.startswith("tcp://") and not is_loopback(host)
