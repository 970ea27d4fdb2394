"""`edgeinfer reload`: have a running daemon apply its changed configuration file."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import click

from edgeinfer.client import Kind, Subscriber
from edgeinfer.commands._options import curve_options, verbose
from edgeinfer.commands._overview import no_daemon
from edgeinfer.commands._terminal import echo
from edgeinfer.errors import ConfigError, UnavailableError
from edgeinfer.messages import DAEMON, InfoMessage, ReloadReport, StatusMessage
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT
from edgeinfer.watchdog.crash import boot_id

ANSWER_S = 5.0
"""`info` and `status` are latched: whoever has not sent them by now is no daemon, or hangs."""
SILENCE_S = 15.0
"""The daemon's status comes every second; without it for so long, it has ended or hangs."""


@click.command("reload")
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@curve_options
@verbose
def command(endpoint: str, server_key: str | None, key: str | None) -> int:
    """Has the daemon that publishes on ENDPOINT, on this machine, read its configuration file again.

    Waits until the changes are in force, and says what they are; a model that must be built first takes its time. When
    the file is wrong the daemon goes on as before, and the reason is the error here.
    """
    kinds: tuple[Kind, ...] = ("info", "status")
    with Subscriber(endpoint, kinds=kinds, sources=(DAEMON,), server_key=server_key, key=key) as subscriber:
        info, requested = _meet(subscriber, endpoint)
        _check_here(info)
        _hang_up(info.pid)
        report = _outcome(subscriber, info, requested)
    if not report.ok:
        raise ConfigError(f"not reloaded: {report.text}")
    for change in report.changes or ("nothing has changed",):
        echo(change)
    return 0


def _meet(subscriber: Subscriber, endpoint: str) -> tuple[InfoMessage, int]:
    """The daemon, and how many reloads it has been asked for so far."""
    info: InfoMessage | None = None
    requested: int | None = None
    until_s = time.monotonic() + ANSWER_S
    while info is None or requested is None:
        message = subscriber.receive(min(0.1, max(0.0, until_s - time.monotonic())))
        if isinstance(message, InfoMessage):
            info = message
        elif isinstance(message, StatusMessage):
            requested = _report(message).requested
        elif subscriber.refused or time.monotonic() >= until_s:
            raise no_daemon(endpoint, subscriber.refused)
    return info, requested


def _check_here(info: InfoMessage) -> None:
    """A signal reaches processes of this machine only, and must reach no other than the daemon."""
    if info.boot_id != boot_id() or info.host != socket.gethostname():
        raise UnavailableError(f"the daemon runs on {info.host}, not here", "call edgeinfer reload there")
    if not _is_edgeinfer(info.pid):
        raise UnavailableError(
            f"process {info.pid} is no edgeinfer run here", "where it runs in a container, call edgeinfer reload there"
        )


def _is_edgeinfer(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return "run" in words and any(Path(word).name in ("edgeinfer", "__main__.py") for word in words)


def _hang_up(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise UnavailableError(
            f"process {pid} belongs to somebody else", "call edgeinfer reload as the daemon's user, or as root"
        ) from None
    except ProcessLookupError:
        raise UnavailableError(f"process {pid} has just ended") from None


def _outcome(subscriber: Subscriber, info: InfoMessage, requested: int) -> ReloadReport:
    """What has become of a request that came after `requested` others."""
    told = ""
    while (message := subscriber.receive(SILENCE_S)) is not None:
        if message.session != info.session:
            raise UnavailableError("the daemon has been started anew meanwhile", "see its log")
        if not isinstance(message, StatusMessage):
            continue
        report = _report(message)
        if report.finished > requested:
            return report
        if message.state == "ended":
            break
        if message.reason is not None and message.reason.code == "engine-building" and message.reason.text != told:
            told = message.reason.text
            echo(f"edgeinfer: {told}", err=True)
    raise UnavailableError(f"process {info.pid} ended, or fell silent, before it had reloaded", "see its log")


def _report(message: StatusMessage) -> ReloadReport:
    return message.reload if isinstance(message.reload, ReloadReport) else ReloadReport(requested=0, finished=0)
