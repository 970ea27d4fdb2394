"""sd_notify(3): READY, STATUS, WATCHDOG and the rest. Every function may be called from any thread and never raises.

systemd-python speaks to systemd where it is installed. Where it is not, a datagram of our own does: the protocol is
fixed and documented for that, and a daemon must not be killed for a library that is missing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from edgeinfer.guard.printable import printable

log = logging.getLogger(__name__)

MAX_STATUS = 500
"""Of a STATUS text, in characters; `systemctl status` shows one line."""


def enabled() -> bool:
    """Whether somebody wants to hear from us: systemd, or `edgeinfer run --supervise`."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def ready(status: str = "") -> None:
    """The service is up, or has finished reloading."""
    _send("READY=1", *_status(status))


def status(text: str) -> None:
    """One line for `systemctl status`."""
    _send(*_status(text))


def reloading() -> None:
    """A reload has begun; `ready` ends it. The time is what Type=notify-reload wants, others ignore it."""
    _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The service is on its way out."""
    _send("STOPPING=1")


def watchdog() -> None:
    """All is well; to be sent at least every `watchdog_s` seconds."""
    _send("WATCHDOG=1")


def extend_timeout(seconds: float) -> None:
    """The start (or stop) goes on and will say so again within `seconds`."""
    _send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """systemd's WatchdogSec, where it wants to hear of this process, in seconds (sd_watchdog_enabled(3))."""
    try:
        usec, pid = int(environ.get("WATCHDOG_USEC", "")), environ.get("WATCHDOG_PID", "")
    except ValueError:
        return None
    return usec / 1e6 if usec > 0 and pid in ("", str(os.getpid())) else None


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={printable(text)[:MAX_STATUS]}",) if text else ()


def _send(*assignments: str) -> None:
    if not enabled() or not assignments:
        return
    message = "\n".join(assignments)
    try:
        _notify(message)
    except (OSError, ValueError) as error:  # systemd judges by what arrives; there is nothing better to do here
        log.debug("NOTIFY_SOCKET: %s", error)


def _notify(message: str) -> None:
    try:
        from systemd.daemon import notify  # noqa: PLC0415 (optional)
    except ImportError:
        _send_datagram(os.environ["NOTIFY_SOCKET"], message.encode())
    else:
        notify(message)


def _send_datagram(address: str, message: bytes) -> None:
    """`@name` is the abstract socket of that name."""
    target = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        channel.sendto(message, target)
