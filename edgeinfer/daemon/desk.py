"""Whoever changes the configuration of a running daemon through its API comes here: checked first, whole or not at all.

What is asked for is done in order, one change at a time, on a thread of its own, which waits for the end of the reload
and takes the change back where that fails. Whoever asked waits for that thread, but not for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedLongEnoughError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgeinfer.config import plugins, strict
from edgeinfer.config.card import Model
from edgeinfer.config.dropins import SECTION, folder_of
from edgeinfer.config.places import Places
from edgeinfer.config.reader import ConfigReader
from edgeinfer.config.replacing import Change, ChangedError, Owner, content
from edgeinfer.config.settings import Config, Reading
from edgeinfer.config.showing import effective, redacted_text, visible_changes
from edgeinfer.daemon.background import Background
from edgeinfer.daemon.changes import plan_reload
from edgeinfer.daemon.checking import check, summary
from edgeinfer.errors import ConfigError, EdgeinferError, InputError
from edgeinfer.guard.limits import MAX_CONFIG_BYTES
from edgeinfer.guard.redaction import asked_with, hidden_meanwhile, redact
from edgeinfer.messages import SOURCE_PATTERN, ReloadReport
from edgeinfer.web.viewing.desk import (
    BadNameError,
    BusyError,
    CheckReport,
    ConfigView,
    Keep,
    Mistake,
    NoSuchSourceError,
    Origin,
    Outcome,
    UnfinishedError,
)

BUSY_S, WAIT_S = 5.0, 120.0
NO_FILE = "the daemon was started without --config FILE"
_HEADING = "# Written by edgeinfer's API, which takes it away again when the source is removed.\n"


@dataclass(frozen=True, slots=True)
class Running:
    """What there is to ask of the daemon that runs, from any thread. `order` asks for a reload."""

    config: Callable[[], Config]
    model: Callable[[], Model]
    failed: Callable[[], Collection[str]]
    order: Callable[[], Future[ReloadReport]]


@dataclass(frozen=True, slots=True)
class _Step:
    """A change that has been made, and how it is taken back; `settle` does without that."""

    undo: Callable[[], None] = lambda: None
    settle: Callable[[], None] = lambda: None
    digest: str | None = None


class Desk:
    """The daemon's `ConfigDesk`. `read` is what the daemon reads at a reload: the file, and what was added here."""

    def __init__(self, reader: ConfigReader) -> None:
        self._reader = reader
        self._salt = secrets.token_bytes(32)
        self._added: dict[str, Any] = {}
        self._running: Running | None = None
        self._changing, self._checking = threading.Lock(), threading.Lock()

    def serve(self, running: Running) -> None:
        """Takes requests from now on."""
        self._running = running

    def read(self) -> Config:
        """The configuration anew. Raises EdgeinferError."""
        if self._reader.path is None and not self._changing.locked():
            raise ConfigError("there is no file to reload", "start the daemon with --config FILE")
        return self._reader.reading(self._added).config

    def view(self, unredacted: bool = False) -> ConfigView:
        """See `ConfigDesk.view`."""
        path, origins = self._reader.path, dict[str, Origin]()
        with contextlib.suppress(EdgeinferError):  # a file that is wrong now is shown all the same
            origins = self._origins()
        data = None if path is None else content(path, MAX_CONFIG_BYTES)
        text = None if data is None else data.decode("utf-8", "replace")
        if text is not None and not unredacted:
            text = redacted_text(text, str(path))
        return ConfigView(
            path=None if path is None else str(path),
            reloadable=path is not None,
            text=text,
            effective=effective(self._daemon.config()),
            digest=None if data is None else self._digest(data),
            origins=origins,
        )

    def check(self, text: str, trusted: bool = False) -> CheckReport:
        """See `ConfigDesk.check`."""
        with _turn(self._checking), hidden_meanwhile(text):
            if trusted:
                return self._checked(text, trusted)
            with plugins.no_new_code(), asked_with(text):
                return self._checked(text, trusted)

    def reload(self, text: str | None = None, digest: str | None = None) -> Outcome:
        """See `ConfigDesk.reload`."""
        if self._reader.path is None:
            raise ConfigError(f"there is no file to reload: {NO_FILE}")
        return self._change(lambda: _Step() if text is None else self._written(text, digest))

    def set_source(self, name: str, table: Mapping[str, Any], keep: Keep) -> Outcome:
        """See `ConfigDesk.set_source`."""
        _check_name(name)
        if keep == "file" and self._reader.path is None:
            raise ConfigError(f"there is no file beside which it could be kept: {NO_FILE}", "keep: restart needs none")
        return self._change(lambda: self._set(name, dict(table), keep))

    def remove_source(self, name: str) -> Outcome:
        """See `ConfigDesk.remove_source`."""
        _check_name(name)
        return self._change(lambda: self._removed(name))

    @property
    def _daemon(self) -> Running:
        if self._running is None:
            raise BusyError("the daemon is starting", "try again")
        return self._running

    def _digest(self, data: bytes) -> str:
        """Tells nobody what is in it: whoever may not see the passwords can't try them either."""
        return hashlib.blake2b(data, digest_size=16, key=self._salt).hexdigest()

    # One change at a time

    def _change(self, make: Callable[[], _Step]) -> Outcome:
        daemon = self._daemon
        if not self._changing.acquire(timeout=BUSY_S):
            raise BusyError("another change is being made, and has not come to its end", "try again later")

        def work(_: threading.Event) -> Outcome:
            try:
                return _reloaded(make(), daemon)
            finally:
                self._changing.release()

        try:
            return self._begun(work).result(WAIT_S)
        except WaitedLongEnoughError:
            said = "the reload goes on: a new model or engine is being prepared"
            raise UnfinishedError(said, "the daemon's status and events tell its end") from None

    def _begun(self, work: Callable[[threading.Event], Outcome]) -> Future[Outcome]:
        try:
            return Background("desk", work).future
        except RuntimeError:  # no more threads
            self._changing.release()
            raise BusyError("there is no thread to make the change with", "try again later") from None

    def _written(self, text: str, digest: str | None) -> _Step:
        """The file with another text. The old one is kept beside it, as FILE.before."""
        path, data = self._file(), text.encode("utf-8", "surrogatepass")
        old = content(path, MAX_CONFIG_BYTES)
        if old is None:
            raise InputError(f"{path}: it is not there any more")
        if digest is not None and digest != self._digest(old):
            raise ChangedError(f"{path}: it is another text now than the one that was changed", "read it again")
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: it would be larger than {MAX_CONFIG_BYTES >> 10} KiB")
        self._try(self._reader.reading(self._added, text))
        change = Change(path, old, data, path.with_name(f"{path.name}.before"), Owner.of(path), MAX_CONFIG_BYTES)
        change.make()
        return _Step(change.undo, digest=self._digest(data))

    def _set(self, name: str, table: dict[str, Any], keep: Keep) -> _Step:
        before, origin = self._added, self._origins().get(name)
        if origin is not None and not origin.removable:
            raise ConfigError(f"there is a source called {name} already, {_where(origin)}", "change it there")
        self._try(self._reader.reading({**before, name: table}))
        if keep == "restart":
            self._added = {**before, name: table}
            return _Step(lambda: self._restore(before))
        text = _HEADING + yaml.safe_dump({SECTION: {name: table}}, sort_keys=False, allow_unicode=True)
        change = self._dropin(name, text.encode())
        if change.old is not None and not self._owned(name):
            raise ConfigError(f"{change.path}: it is there already, and holds something else", "remove it first")
        change.make()
        self._added = {key: value for key, value in before.items() if key != name}
        return self._changed_dropin(change, before)

    def _removed(self, name: str) -> _Step:
        before, origin = self._added, self._origins().get(name)
        if origin is None:
            known = strict.nearest(name, self._daemon.config().sources)
            raise NoSuchSourceError(f"there is no source called {name}", known)
        if not origin.removable:
            raise ConfigError(f"{name} was not added here: it stands {_where(origin)}", "remove it there, then reload")
        rest = {key: value for key, value in before.items() if key != name}
        if not self._owned(name):
            self._added = rest
            return _Step(lambda: self._restore(before))
        change = self._dropin(name, None)
        change.make()
        self._added = rest
        return self._changed_dropin(change, before)

    def _changed_dropin(self, change: Change, added: dict[str, Any]) -> _Step:
        def undo() -> None:
            self._restore(added)
            change.undo()

        return _Step(undo, change.forget)

    def _owned(self, name: str) -> bool:
        """Whether the source's own drop-in is there, and holds nothing else."""
        if self._reader.path is None:
            return False
        own = [text for text in self._reader.reading().texts if text.file == str(self._api_file(name))]
        return [list(_names(text)) for text in own] == [[name]]

    def _restore(self, added: dict[str, Any]) -> None:
        self._added = added

    def _dropin(self, name: str, data: bytes | None) -> Change:
        path = self._api_file(name)
        owner = Owner.of(self._file())
        old, before = content(path, MAX_CONFIG_BYTES), path.with_name(f".{path.name}.before")
        return Change(path, old, data, before, Owner(None, None, owner.mode), MAX_CONFIG_BYTES)

    def _file(self) -> Path:
        """The file itself, where a link leads to it."""
        assert self._reader.path is not None  # noqa: S101 (asked before)
        return Path(os.path.realpath(self._reader.path))

    def _api_file(self, name: str) -> Path:
        assert self._reader.path is not None  # noqa: S101 (asked before)
        return folder_of(self._reader.path) / f"api-{name}.yaml"

    # What is said of a configuration

    def _checked(self, text: str, trusted: bool) -> CheckReport:
        try:
            path = self._reader.path or Path("config.yaml")
            reader = ConfigReader(path, self._reader.overrides)
            reading = reader.reading(self._added, text)
            model = check(reading) if trusted else self._same_model(reading.config)
        except EdgeinferError as error:
            return CheckReport(ok=False, text=str(error), errors=[_mistake(error)])
        said = "its model is looked at for an admin" if model is None else summary(reading.config, model)
        changes, refused = self._planned(reading.config, model)
        if not trusted:
            changes = visible_changes(self._daemon.config(), reading.config, changes)
        return CheckReport(ok=True, text=f"{path}: ok: {said}", changes=changes, refused=refused)

    def _same_model(self, config: Config) -> Model | None:
        """The model that runs, if this is the one; no file is opened."""
        now = self._daemon.config().model
        same = (config.model.path, config.model.card, config.model.sha256) == (now.path, now.card, now.sha256)
        return self._daemon.model() if same else None

    def _planned(self, config: Config, model: Model | None) -> tuple[list[str], str | None]:
        if self._reader.path is None:
            return [], NO_FILE
        try:
            return self._plan(config, model), None
        except EdgeinferError as error:
            return [], str(error)

    def _plan(self, config: Config, model: Model | None) -> list[str]:
        same = model is None or model == self._daemon.model()
        return list(plan_reload(self._daemon.config(), config, same, self._daemon.failed()).changes)

    def _try(self, reading: Reading) -> None:
        """Raises what would be said of a reload before anything is changed for it."""
        self._plan(reading.config, check(reading))

    def _origins(self) -> dict[str, Origin]:
        """Of each source where it comes from. Raises EdgeinferError where the file can't be read now."""
        texts = self._reader.reading(self._added).texts
        given = {key.split(".")[1] for key, _ in self._reader.overrides if re.fullmatch(rf"{SECTION}\.[^.]+", key)}
        names = {*self._daemon.config().sources, *given, *self._added}
        names |= {name for text in texts for name in _names(text)}
        return {name: self._origin(name, texts, name in given) for name in sorted(names)}

    def _origin(self, name: str, texts: tuple[Places, ...], given: bool) -> Origin:
        if given:
            return Origin(kind="command-line")
        if name in self._added:
            return Origin(kind="memory", removable=True)
        for number, text in enumerate(texts):
            if name in _names(text):
                place = str(text.find(f"{SECTION}.{name}", of_name=True).place or text.file)
                own = bool(number) and text.file == str(self._api_file(name)) and len(_names(text)) == 1
                return Origin(kind="api" if own else "drop-in" if number else "file", place=place, removable=own)
        return Origin(kind="command-line")


def _reloaded(step: _Step, daemon: Running) -> Outcome:
    """How the reload after a change has gone; where that has failed, the change is taken back."""
    report = daemon.order().result()
    if report.ok:
        step.settle()
        return Outcome(ok=True, text=report.text, changes=list(report.changes), digest=step.digest)
    try:
        step.undo()
    except EdgeinferError as error:
        raise ConfigError(f"not reloaded: {report.text}; and not taken back: {error.message}", error.hint) from None
    raise ConfigError(f"not reloaded: {report.text}; everything is as it was")


def _names(text: Places) -> Collection[str]:
    """The sources in a text."""
    return text.below(SECTION)


def _where(origin: Origin) -> str:
    return f"at {origin.place}" if origin.place else "on the command line"


def _check_name(name: str) -> None:
    if not re.search(SOURCE_PATTERN, name):
        said = f"{strict.shown('', name)} can be no source's name"
        raise BadNameError(said, "up to 64 letters and digits, - and _, of which the first is none of these two")


def _mistake(error: EdgeinferError) -> Mistake:
    place = error.place
    return Mistake(
        message=error.said,
        hint=error.hint,
        key=redact(error.key or ""),
        file=None if place is None else place.file,
        line=None if place is None else place.line,
        column=None if place is None else place.column,
        end_column=None if place is None else place.end_column,
    )


@contextlib.contextmanager
def _turn(lock: threading.Lock) -> Iterator[None]:
    """Holds a lock; whoever would have to wait for long is told so."""
    if not lock.acquire(timeout=BUSY_S):
        raise BusyError("another text is being checked", "try again later")
    try:
        yield
    finally:
        lock.release()
