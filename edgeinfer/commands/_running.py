"""A run of the daemon from start to end, as `edgeinfer run` shows it."""

from __future__ import annotations

import logging
import os
import sys

from edgeinfer.commands._journal import Changes
from edgeinfer.commands._report import LiveLine, SceneLines, print_summary
from edgeinfer.commands._terminal import echo
from edgeinfer.config.reader import ConfigReader
from edgeinfer.config.settings import Config, writes_to_stdout
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.desk import Desk
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.errors import EdgeinferError
from edgeinfer.interfaces import Sink
from edgeinfer.systemd import journal
from edgeinfer.watchdog.judge import Judge

log = logging.getLogger(__name__)


def run(read: ConfigReader) -> int:
    """Runs what `read` gives, and returns the exit code. Raises EdgeinferError, the first one where sources failed."""
    desk = Desk(read)
    with Signals(reloads=True) as signals:
        config = read()
        daemon = Daemon(config, narrators(config), desk.read, desk=desk)
        tell_page(daemon.instruments.page, writes_to_stdout(config))
        fatal = _run(daemon, signals, Judge(daemon, config.watchdog.deadline_s))
        _end_hard_where_needed(daemon, signals)
    if fatal is not None:
        raise fatal
    failures = list(daemon.failures().values())
    for error in failures if signals.received else failures[1:]:
        echo(f"edgeinfer: also: {error}", err=True)
    if failures and not signals.received:
        raise failures[0]
    return 0


def narrators(config: Config) -> dict[str, Sink]:
    """What tells people of the run: the journal of a service, else standard output, unless it is for the JSON lines."""
    if journal.is_stderr():
        return {"journal": Changes()}
    return {} if writes_to_stdout(config) else {"console": SceneLines()}


def tell_page(page: str, elsewhere: bool) -> None:
    """Where the page is: beside the scenes, unless JSON lines are there; in a journal a line like any other."""
    if page and journal.is_stderr():
        log.info("page %s", page)
    elif page:
        echo(f"edgeinfer: page {page}", err=elsewhere)


def _run(daemon: Daemon, signals: Signals, judge: Judge) -> EdgeinferError | None:
    """The run from start to summary. Returns what ended it, where that was an error."""
    fatal: EdgeinferError | None = None
    told: set[str] = set()
    with LiveLine(daemon, quiet=journal.is_stderr()) as live_line:

        def on_turn() -> None:
            daemon.reloader.request(signals.hangups)
            live_line.update()
            _tell_failures(daemon, told)

        try:
            daemon.start()
            judge.start()
            daemon.run(lambda: bool(signals.received), on_turn)
        except EdgeinferError as error:
            fatal = error
        judge.ending(fatal)
        summary = daemon.stop(Patience(signals, hurry=fatal is not None))
        judge.close()
    if not daemon.loading:
        print_summary(summary)
    return fatal


def _end_hard_where_needed(daemon: Daemon, signals: Signals) -> None:
    """After a second signal, or beside a thread that hangs: a normal exit would wait for it."""
    if signals.received > 1 or (signals.received and daemon.hung):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signals.last if signals.received > 1 else 0)


def _tell_failures(daemon: Daemon, told: set[str]) -> None:
    """A source that fails while others go on is reported at once, not only at the end."""
    errors = daemon.sources.errors()
    if len(errors) < len(daemon.sources.books):
        for name in errors.keys() - told:
            told.add(name)
            echo(f"edgeinfer: source {name} failed: {errors[name]}", err=True)
