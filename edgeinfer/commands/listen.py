"""`edgeinfer listen`: show what a daemon publishes."""

from __future__ import annotations

import time

import click
import msgspec

from edgeinfer.commands._options import curve_options, verbose
from edgeinfer.commands._report import scene_line
from edgeinfer.commands._terminal import echo
from edgeinfer.daemon.signals import Signals
from edgeinfer.errors import UnavailableError
from edgeinfer.guard.limits import MAX_PARTS
from edgeinfer.guard.printable import escaped, one_line, printable
from edgeinfer.messages import DetectionsMessage, InfoMessage, Message, StatusMessage
from edgeinfer.transport.acceptance import accept
from edgeinfer.transport.connection import Connection
from edgeinfer.transport.endpoint import DEFAULT_ENDPOINT

POLL_MS = 100
COMPLAINT_S = 1.0


@click.command("listen")
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@click.option(
    "--topic", default="edgeinfer/1/", show_default=True, metavar="PREFIX", help="Only topics that begin with this."
)
@click.option("--jsonl", is_flag=True, help="The payloads as they are, one JSON object a line.")
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after so many messages.")
@curve_options
@verbose
def command(endpoint: str, topic: str, jsonl: bool, count: int | None, server_key: str | None, key: str | None) -> int:
    """Prints every message from ENDPOINT, a line each, until a signal comes."""
    link = Connection(endpoint, [topic.encode()], server_key=server_key, key=key)
    try:
        with Signals() as signals:
            return _print_all(link, jsonl, count, signals)
    finally:
        link.close()


def _print_all(link: Connection, jsonl: bool, count: int | None, signals: Signals) -> int:
    printed, complaints = 0, Complaints()
    while not signals.received and printed != count:
        if link.poll(POLL_MS):
            parts = link.read(time.monotonic() + POLL_MS / 1000) or []
            try:
                payload = parts[1] if len(parts) == MAX_PARTS else b""
                line = raw_line(payload) if jsonl else describe(accept(payload))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                complaints.add(printable(str(error)))
                continue
            echo(line)
            printed += 1
        elif link.refused:
            raise UnavailableError(link.refused)
    complaints.close()
    return 0


class Complaints:
    """Says on standard error what was no message: once a second at most, and how many more there were."""

    def __init__(self) -> None:
        self._due_s = 0.0
        self._untold = 0

    def add(self, why: str) -> None:
        """One more."""
        if time.monotonic() < self._due_s:
            self._untold += 1
            return
        self.close()
        self._due_s = time.monotonic() + COMPLAINT_S
        echo(f"edgeinfer: not a message of schema v1: {why}", err=True)

    def close(self) -> None:
        """Tells of those that have not been told."""
        if self._untold:
            echo(f"edgeinfer: … and {self._untold} more", err=True)
            self._untold = 0


def raw_line(payload: bytes) -> str:
    """A payload as it came; MessagePack as the same in JSON. Fields that we don't know stay.

    Raises msgspec.MsgspecError, or UnicodeDecodeError, where it is neither, or holds what JSON can't.
    """
    try:
        if payload[:1] != b"{":
            payload = msgspec.json.encode(msgspec.msgpack.decode(payload))
        return escaped(msgspec.json.format(payload, indent=-1).decode())
    except (TypeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def describe(message: Message) -> str:
    """A message as one line for a person, without what a terminal would obey."""
    return one_line(_described(message))


def _described(message: Message) -> str:
    if isinstance(message, DetectionsMessage):
        return f"{scene_line(message)}  ({message.timing_ms.total:.0f} ms)"
    if isinstance(message, StatusMessage):
        reason = f", {message.reason.text}" if message.reason else ""
        return (
            f"{message.source} is {message.state}{reason}: {message.inferred} of {message.captured} frames, "
            f"{message.dropped} dropped, {message.fps:.1f} fps"
        )
    assert isinstance(message, InfoMessage)  # noqa: S101 (there is no other kind)
    return (
        f"edgeinfer {message.version} on {message.host}, PID {message.pid}: {message.model.id}, "
        f"{message.backend or 'loading'}, sources {', '.join(message.sources)}"
    )
