"""The desk: a running daemon's configuration changed through it, checked first, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.config import replacing
from edgeinfer.config.card import Model
from edgeinfer.config.reader import ConfigReader
from edgeinfer.config.replacing import ChangedError
from edgeinfer.config.settings import Config
from edgeinfer.config.showing import redacted_text
from edgeinfer.daemon import desk as desk_module
from edgeinfer.daemon.checking import check_model
from edgeinfer.daemon.desk import Desk, Running
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, TemporaryError
from edgeinfer.guard import redaction
from edgeinfer.guard.limits import MAX_CONFIG_BYTES
from edgeinfer.messages import ReloadReport
from edgeinfer.web.viewing.desk import BadNameError, BusyError, NoSuchSourceError, Outcome, UnfinishedError
from tests.test_full_disk import MOUNT, fill, root_only, small_disk  # noqa: F401 (a fixture)
from tests.test_places import LEAVES, spoilt

TEXT = "# mine\nsources:\n  yard: {uri: 'demo:', max_fps: 5}\n"
MORE = TEXT + "  gate: 'demo:'\n"
SOURCE = {"uri": "demo:", "max_fps": 3}


class Made:
    """A desk and a daemon that is made up: it reads as the reloader does, and says what it is told to say."""

    def __init__(self, path: Path | None, *overrides: tuple[str, Any]) -> None:
        self.reader = ConfigReader(path, overrides)
        self.config: Config = self.reader()
        self.model: Model = check_model(self.config)
        self.desk = Desk(self.reader)
        self.failure = ""
        self.reloads = 0
        self.before: Callable[[], None] = lambda: None
        self.answers = True
        self.waiting: list[Future[ReloadReport]] = []
        self.desk.serve(Running(lambda: self.config, lambda: self.model, lambda: (), self.order))

    def order(self) -> Future[ReloadReport]:
        order: Future[ReloadReport] = Future()
        self.reloads += 1
        self.waiting.append(order)
        if self.answers:
            self.answer()
        return order

    def answer(self) -> None:
        self.before()
        self.waiting.pop(0).set_result(self._reload())

    def _reload(self) -> ReloadReport:
        try:
            new = self.desk.read()
        except EdgeinferError as error:
            return ReloadReport(requested=1, finished=1, ok=False, text=str(error))
        if self.failure:
            return ReloadReport(requested=1, finished=1, ok=False, text=self.failure)
        self.config = new
        return ReloadReport(requested=1, finished=1, ok=True, text="done", changes=("x: changed",))

    @property
    def sources(self) -> list[str]:
        return list(self.config.sources)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


@pytest.fixture
def made(path: Path) -> Made:
    return Made(path)


def files(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path.parent)) for found in path.parent.rglob("*") if found.is_file())


def tree(path: Path) -> dict[str, bytes]:
    return {name: (path.parent / name).read_bytes() for name in files(path)}


# --- what is there ---


def test_what_the_desk_shows(made: Made, path: Path) -> None:
    view = made.desk.view(unredacted=True)
    assert (view.path, view.reloadable, view.text) == (str(path), True, TEXT)
    assert view.effective["sources"]["yard"]["max_fps"] == 5
    assert view.effective["model"]["path"] == "nanodet-g"
    assert view.effective["publish"]["bind"] == "tcp://127.0.0.1:5555"
    origin = view.origins["yard"]
    assert (origin.kind, origin.place, origin.removable) == ("file", f"{path}:3:3", False)
    assert made.desk.view().digest == view.digest
    assert Made(path).desk.view().digest != view.digest, "nobody can try passwords with it"


SECRETS = """\
# the old one was password: oldsesame1
sources:
  yard:
    uri: 'rtsp://admin:hunter22@10.0.0.1/main'
    user: &name admin
    password: &pw "s3"  # short
  gate: {uri: rtsp://10.0.0.2/main, user: *name, password: *pw}
  roof:
    uri: rtsp://10.0.0.3/x
    password: |
      swordfish-77
    user: >-
      someone
"""


def test_a_viewer_sees_no_password_however_it_is_written(path: Path) -> None:
    path.write_text(SECRETS)
    desk = Made(path).desk
    shown = desk.view()
    assert shown.text is not None
    for secret in ("hunter22", "s3", "swordfish-77", "oldsesame1"):
        assert secret not in shown.text
        assert secret not in repr(shown.effective)
    assert yaml.safe_load(shown.text)["sources"]["gate"] == {
        "uri": "rtsp://10.0.0.2/main",
        "user": "admin",
        "password": "***",
    }
    assert desk.view(unredacted=True).text == SECRETS


def test_a_text_that_is_none_is_not_shown_to_viewers(made: Made, path: Path) -> None:
    path.write_text("sources: [\npassword: hunter22")
    assert (made.desk.view().text, made.desk.view().origins) == (None, {})
    assert "hunter22" in str(made.desk.view(unredacted=True).text)
    path.unlink()
    assert made.desk.view().text is None


# --- check ---


def test_a_check_says_what_a_reload_would_do_and_does_nothing(made: Made, path: Path) -> None:
    before = tree(path)
    report = made.desk.check(MORE.replace("5", "6"))
    assert (report.ok, report.errors, report.refused) == (True, [], None)
    assert report.text == f"{path}: ok: nanodet-g@e747d49e on auto, sources yard, gate"
    assert report.changes == ["sources.yard: max_fps changed", "sources.gate: added"]
    assert made.desk.check(TEXT).changes == []
    assert (made.reloads, tree(path)) == (0, before)


def test_a_check_has_the_place_of_a_mistake(made: Made) -> None:
    report = made.desk.check("sources:\n  yard: {uri: 'demo:', max_fsp: 5}\n")
    (error,) = report.errors
    assert not report.ok
    assert report.text.endswith(f":2:24: {error.message}; {error.hint}")
    assert (error.line, error.column, error.end_column) == (2, 24, 31)
    assert (error.key, error.hint) == ("sources.yard.max_fsp", "did you mean max_fps?")


def test_a_check_says_what_can_not_be_changed_while_it_runs(made: Made) -> None:
    report = made.desk.check(TEXT + "publish: {high_water_mark: 5}\n")
    assert report.ok
    assert report.refused is not None
    assert report.refused.startswith("publish.high_water_mark: can't be changed")


@pytest.mark.slow
@given(st.sampled_from(LEAVES))
def test_a_wrong_type_in_any_key_is_found(leaf: tuple[tuple[str, ...], Any]) -> None:
    text, line, column = spoilt(*leaf)
    (error,) = Made(None, ("sources.more", "demo:")).desk.check(text).errors
    assert (error.line, error.column) == (line, column)


@pytest.mark.slow
@given(st.text() | st.text("{}[]:&*<!|>-'\"\n #ab", max_size=40))
def test_any_text_is_checked(text: str) -> None:
    report = Made(None, ("sources.a", "demo:")).desk.check(text)
    assert report.ok is not bool(report.errors)


def test_who_only_asks_has_no_code_run_and_no_file_opened(
    made: Made, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plug").mkdir()
    (tmp_path / "plug" / "in.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    for text in ("sources: {a: 'plug.in:x'}", "sinks: {plug.in: {}}", "backend: plug.in"):
        (error,) = made.desk.check(text).errors
        assert "is code that the daemon does not use" in error.message
    secret = tmp_path / "secret.yaml"
    secret.write_text("x")
    for model in (f"{tmp_path}/none.onnx", str(secret)):
        report = made.desk.check(f"{TEXT}model: {{path: {model}}}\n")
        assert report.text == f"{path}: ok: its model is looked at for an admin"
        assert report.changes == ["model: path changed"]
        assert not made.desk.check(f"{TEXT}model: {{path: {model}}}\n", trusted=True).ok


def test_what_a_viewers_text_calls_secret_has_no_say_elsewhere(made: Made) -> None:
    known = dict(redaction._known)
    report = made.desk.check("sources: {a: {uri: 'rtsp://u:camera-one@h/x', password: running, max_fps: 'camera-one'}}")
    assert "camera-one" not in report.text
    assert redaction._known == known
    assert "camera-one" in str(ConfigError("camera-one is running"))


def test_a_viewer_who_guesses_a_password_is_not_told_whether_it_is_right(path: Path) -> None:
    camera = "sources:\n  yard: {uri: 'rtsp://admin:%s@10.0.0.9/x', max_fps: %d}\n"
    path.write_text(camera % ("Qz-4711", 5))
    desk = Made(path).desk
    asked = [
        camera % ("%s", 5),
        camera % ("%s", 4),
        camera % ("right", 5) + "the %s: 1\n",
        camera % ("right", 5) + "password: %s\nsources.%s: 1\n",
        camera % ("right", 5) + "? 'UXotNDcxMQ== %s'\n: 1\n",
    ]
    for text in asked:
        right, wrong = (desk.check(text.replace("%s", guess)) for guess in ("Qz-4711", "Qz-4712"))
        assert str(right).replace("Qz-4711", "Qz-4712") == str(wrong), text
    assert desk.check(camera % ("Qz-4712", 4)).changes == ["sources.yard: max_fps changed"]
    shown = desk.view().text
    assert shown is not None
    assert "4711" not in shown
    assert desk.check(shown).changes == [], "who has changed nothing is told so"
    assert desk.check(shown.replace("10.0.0.9", "10.0.0.8")).changes == ["sources.yard: uri changed; opened again"]
    assert desk.check(camera % ("Qz-4712", 5), trusted=True).changes == ["sources.yard: uri changed; opened again"]


def test_no_key_of_a_drop_in_shows_a_password(made: Made, path: Path) -> None:
    folder = path.with_name(f"{path.name}.d")
    folder.mkdir()
    (folder / "x.yaml").write_text("sources: {gate: {uri: 'demo:', password hunter22: 1}}\n")
    assert "hunter22" not in str(made.desk.check(TEXT))


def test_one_text_is_checked_at_a_time(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BUSY_S", 0.0)
    with desk_module._turn(made.desk._checking), pytest.raises(BusyError, match="another text is being checked"):
        made.desk.check(TEXT)


# --- the file ---


def test_a_text_is_written_and_reloaded_and_the_old_one_kept(made: Made, path: Path) -> None:
    outcome = made.desk.reload(MORE, made.desk.view().digest)
    assert (outcome.ok, outcome.text, outcome.changes) == (True, "done", ["x: changed"])
    assert path.read_text() == MORE
    assert (path.parent / "site.yaml.before").read_text() == TEXT
    assert {stat.S_IMODE((path.parent / name).stat().st_mode) for name in files(path)} == {0o640}
    assert files(path) == ["site.yaml", "site.yaml.before"]
    assert made.sources == ["yard", "gate"]


@pytest.mark.parametrize("text", ["\ufeff" + MORE, MORE.replace("\n", "\r\n"), "x: 1", "", "ä: ö\n", "a: &a [*a]"])
def test_a_text_is_written_byte_for_byte_or_not_at_all(made: Made, path: Path, text: str) -> None:
    with contextlib.suppress(EdgeinferError):
        made.desk.reload(text)
    assert path.read_bytes() == (text if "gate" in text else TEXT).encode()


@pytest.mark.slow
def test_a_text_just_as_large_as_it_may_be(made: Made, path: Path) -> None:
    text = MORE + "#" * (MAX_CONFIG_BYTES - len(MORE))
    assert made.desk.reload(text).ok
    assert path.read_text() == text
    with pytest.raises(ConfigError, match="it would be larger than 256 KiB"):
        made.desk.reload(text + "#")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sources: {yard: [1]}\n", r"site\.yaml:1:17: sources\.yard: a list is not allowed"),
        ("sources: [\n", r"site\.yaml:2:1: not valid YAML"),
        (TEXT + "publish: null\n", r"publish: can't be changed while the daemon runs"),
        (TEXT + "model: none\n", r"site\.yaml:4:8: no model called 'none'"),
        ("", r"no sources"),
    ],
)
def test_a_text_that_can_not_be_applied_is_not_written(made: Made, path: Path, text: str, says: str) -> None:
    before = tree(path)
    with pytest.raises(EdgeinferError, match=says):
        made.desk.reload(text)
    assert (made.reloads, tree(path)) == (0, before)


def test_where_the_reload_fails_the_file_is_put_back_byte_for_byte(made: Made, path: Path) -> None:
    path.write_bytes(("\ufeff" + TEXT).replace("\n", "\r\n").encode())
    before, mode = tree(path), path.stat().st_mode
    made.failure = "the new model failed"
    seen: list[str] = []
    made.before = lambda: seen.append(path.read_text())
    with pytest.raises(ConfigError, match="not reloaded: the new model failed; everything is as it was"):
        made.desk.reload(MORE)
    assert (seen, tree(path), path.stat().st_mode) == ([MORE], before, mode)


def test_a_file_that_somebody_else_has_changed_is_left_alone(made: Made, path: Path) -> None:
    digest = made.desk.view(unredacted=True).digest
    path.write_text(TEXT + "frames: 9\n")
    before = tree(path)
    with pytest.raises(ChangedError, match="it is another text now"):
        made.desk.reload(MORE, digest)
    assert tree(path) == before


def test_a_file_that_changes_while_the_new_one_is_prepared(
    made: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: path.write_text("theirs"))
    with pytest.raises(ChangedError, match="somebody else has changed it meanwhile"):
        made.desk.reload(MORE)
    assert tree(path) == {"site.yaml": b"theirs"}


def test_a_file_that_changes_while_it_is_reloaded_is_not_put_back(made: Made, path: Path) -> None:
    made.failure = "no"
    made.before = lambda: void(path.write_text(TEXT + "frames: 9\n"))
    with pytest.raises(ConfigError, match=r"not reloaded: no; and not taken back: .*somebody else has changed it"):
        made.desk.reload(MORE)
    assert path.read_text() == TEXT + "frames: 9\n"
    assert (path.parent / "site.yaml.before").read_text() == TEXT


def void(_: object) -> None:
    """For what has a result that nobody wants."""


def test_a_link_stays_one(path: Path) -> None:
    link = path.parent / "link.yaml"
    link.symlink_to("site.yaml")
    made = Made(link)
    assert made.desk.reload(MORE).ok
    assert link.is_symlink()
    assert path.read_text() == MORE


def test_a_file_that_is_gone(made: Made, path: Path) -> None:
    path.unlink()
    with pytest.raises(InputError, match="it is not there any more"):
        made.desk.reload(MORE)
    assert files(path) == []


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EROFS, InputError, "Read-only file system; nothing was changed; change it as its owner"),
        (errno.EACCES, InputError, "Permission denied; nothing was changed"),
        (errno.ENOSPC, TemporaryError, "No space left on device; nothing was changed; make room on the disk"),
    ],
)
def test_a_folder_that_can_not_be_written(
    made: Made, path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[EdgeinferError], says: str
) -> None:
    before, real = tree(path), os.open

    def fail(name: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return real(name, flags, *rest, **more)

    monkeypatch.setattr(os, "open", fail)
    changes: list[Callable[[], Outcome]] = [
        lambda: made.desk.reload(MORE),
        lambda: made.desk.set_source("gate", {"uri": "demo:"}, "file"),
    ]
    for change in changes:
        with pytest.raises(kind, match=says):
            change()
    assert (made.reloads, tree(path)) == (0, before)


@pytest.mark.slow
def test_a_full_disk_changes_nothing(small_disk: Path) -> None:  # noqa: F811 (the fixture)
    path = small_disk / "site.yaml"
    path.write_text(TEXT)
    made = Made(path)
    ballast = fill(small_disk)
    large = MORE + "#" * 100_000
    for text in (MORE, large):
        with pytest.raises(TemporaryError, match="No space left on device; nothing was changed"):
            made.desk.reload(text)
        assert path.read_text() == TEXT
        assert not list(small_disk.glob(".*"))
    ballast.unlink()
    assert made.desk.reload(large).ok
    fill(small_disk)
    made.failure = "no"
    with pytest.raises(TemporaryError):
        made.desk.reload(MORE)
    assert path.read_text() == large


def test_a_read_only_disk_changes_nothing(small_disk: Path) -> None:  # noqa: F811 (the fixture)
    path = small_disk / "site.yaml"
    path.write_text(TEXT)
    made = Made(path)
    subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
    changes: list[Callable[[], Outcome]] = [
        lambda: made.desk.reload(MORE),
        lambda: made.desk.set_source("gate", SOURCE, "file"),
    ]
    for change in changes:
        with pytest.raises(InputError, match="Read-only file system; nothing was changed"):
            change()
    assert made.desk.set_source("gate", SOURCE, "restart").ok


def test_putting_back_needs_no_room(small_disk: Path) -> None:  # noqa: F811 (the fixture)
    path = small_disk / "site.yaml"
    path.write_text(TEXT)
    made = Made(path)
    made.failure, made.before = "no", lambda: void(fill(small_disk))
    with pytest.raises(ConfigError, match="everything is as it was"):
        made.desk.reload(MORE)
    assert path.read_text() == TEXT


@root_only
def test_owner_group_and_mode_stay(made: Made, path: Path) -> None:
    os.chown(path, 1234, 2345)
    path.chmod(0o604)
    assert made.desk.reload(MORE).ok
    for name in files(path):
        status = (path.parent / name).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o604)


def test_a_file_of_somebody_else_is_not_made_ours(made: Made, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(path)
    monkeypatch.setattr(replacing.Owner, "of", lambda _: replacing.Owner(1234, 2345, 0o640))

    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", fail)
    with pytest.raises(
        InputError, match="it belongs to another user or group, and would not any more; nothing was chang"
    ):
        made.desk.reload(MORE)
    assert tree(path) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeinfer.config.replacing import Change, Owner

path, steps = Path(sys.argv[1]), int(sys.argv[2])

def hook(event, args):
    global steps
    if event in ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir") and str(path.parent) in str(args[0]):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)

change = Change(path, path.read_bytes(), b"new", path.with_name("site.yaml.before"), Owner.of(path), 9999)
sys.addaudithook(hook)
change.make()
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_the_old_text_or_the_new_one(path: Path) -> None:
    """Before each step that it takes on the disk. What it leaves is in nobody's way."""
    found: list[str] = []
    before, step = path.parent / "site.yaml.before", 0
    while not found or found[-1] != "ended":
        step += 1
        path.write_text(TEXT)
        before.write_text("older")
        code = subprocess.run([sys.executable, "-c", KILLED, str(path), str(step)], check=False).returncode
        assert code in (0, -signal.SIGKILL)
        found.append("ended" if code == 0 else path.read_text())
        assert path.read_text() in (TEXT, "new")
        assert before.read_text() in ("older", TEXT)
        assert path.read_text() == TEXT or before.read_text() == TEXT, "the old text is never lost"
    assert found[0] == TEXT
    assert len(found) > 5
    assert files(path) == ["site.yaml", "site.yaml.before"]


# --- sources ---


def test_a_source_lives_until_the_restart(made: Made, path: Path) -> None:
    before = tree(path)
    assert made.desk.set_source("gate", SOURCE, "restart").ok
    assert made.sources == ["yard", "gate"]
    path.write_text(TEXT + "  roof: 'demo:'\n")
    assert made.desk.reload().ok
    assert made.sources == ["yard", "roof", "gate"], "it survives other reloads"
    assert made.desk.view().origins["gate"].kind == "memory"
    assert made.desk.set_source("gate", {"uri": "demo:", "max_fps": 4}, "restart").ok
    assert made.config.sources["gate"].max_fps == 4
    assert made.desk.remove_source("gate").ok
    assert made.sources == ["yard", "roof"]
    path.write_text(TEXT)
    assert tree(path) == before


def test_a_source_is_kept_in_a_file_of_its_own(made: Made, path: Path) -> None:
    assert made.desk.set_source("gate", SOURCE, "file").ok
    assert files(path) == ["site.yaml", "site.yaml.d/api-gate.yaml"]
    assert yaml.safe_load((path.parent / "site.yaml.d/api-gate.yaml").read_text()) == {"sources": {"gate": SOURCE}}
    assert stat.S_IMODE((path.parent / "site.yaml.d/api-gate.yaml").stat().st_mode) == 0o640
    assert list(Made(path).sources) == ["yard", "gate"], "after the restart too"
    assert made.desk.view().origins["gate"].kind == "api"
    assert made.desk.set_source("gate", {"uri": "demo:"}, "file").ok
    assert made.config.sources["gate"].max_fps is None
    assert made.desk.remove_source("gate").ok
    assert (made.sources, files(path)) == (["yard"], ["site.yaml"])


def test_a_source_moves_from_memory_into_a_file(made: Made, path: Path) -> None:
    made.desk.set_source("gate", SOURCE, "restart")
    made.desk.set_source("gate", SOURCE, "file")
    assert made.desk.view().origins["gate"].kind == "api"
    assert made.sources == ["yard", "gate"]


@pytest.mark.slow
def test_a_source_may_be_changed_until_the_restart_over_its_file(made: Made, path: Path) -> None:
    made.desk.set_source("gate", SOURCE, "file")
    made.desk.set_source("gate", {**SOURCE, "max_fps": 9}, "restart")
    assert made.config.sources["gate"].max_fps == 9
    assert Made(path).config.sources["gate"].max_fps == 3
    made.desk.set_source("gate", {**SOURCE, "max_fps": 8}, "file")
    assert Made(path).config.sources["gate"].max_fps == 8
    made.desk.set_source("gate", {**SOURCE, "max_fps": 7}, "restart")
    made.desk.remove_source("gate")
    assert (made.sources, files(path)) == (["yard"], ["site.yaml"])


@pytest.mark.slow
def test_where_the_reload_fails_sources_are_as_they_were(made: Made, path: Path) -> None:
    made.desk.set_source("kept", SOURCE, "file")
    made.desk.set_source("held", SOURCE, "restart")
    before, origins, made.failure = tree(path), made.desk.view().origins, "no"
    changes: list[Callable[[], Outcome]] = [
        lambda: made.desk.set_source("gate", SOURCE, "file"),
        lambda: made.desk.set_source("gate", SOURCE, "restart"),
        lambda: made.desk.set_source("kept", {"uri": "demo:"}, "file"),
        lambda: made.desk.set_source("held", {"uri": "demo:"}, "file"),
        lambda: made.desk.remove_source("kept"),
        lambda: made.desk.remove_source("held"),
    ]
    for change in changes:
        with pytest.raises(ConfigError, match="not reloaded: no; everything is as it was"):
            change()
        assert tree(path) | {".": b""} == before | {".": b""}
    assert made.desk.view().origins == origins


def test_what_a_person_has_written_is_not_removed_here(made: Made, path: Path) -> None:
    (path.parent / "site.yaml.d").mkdir()
    (path.parent / "site.yaml.d" / "a.yaml").write_text("sources: {roof: 'demo:'}\n")
    (path.parent / "site.yaml.d" / "api-two.yaml").write_text("sources: {two: 'demo:', three: 'demo:'}\n")
    (path.parent / "site.yaml.d" / "api-odd.yaml").write_text("")
    before = tree(path)
    for name, place in (("yard", "site.yaml:3:3"), ("roof", "site.yaml.d/a.yaml:1:11"), ("two", "api-two.yaml:1:11")):
        with pytest.raises(ConfigError, match=rf"{name} was not added here: it stands at .*{place}"):
            made.desk.remove_source(name)
        for keep in ("restart", "file"):
            with pytest.raises(ConfigError, match=f"there is a source called {name} already, at .*{place}"):
                made.desk.set_source(name, SOURCE, keep)
    with pytest.raises(ConfigError, match=r"api-odd\.yaml: it is there already, and holds something else"):
        made.desk.set_source("odd", SOURCE, "file")
    with pytest.raises(NoSuchSourceError, match="there is no source called yad; did you mean yard"):
        made.desk.remove_source("yad")
    assert (made.reloads, tree(path)) == (0, before)


def test_beside_a_file_that_is_wrong_now_nothing_is_changed(made: Made, path: Path) -> None:
    path.write_text("sources: [")
    changes: list[Callable[[], Outcome]] = [
        lambda: made.desk.set_source("gate", SOURCE, "restart"),
        lambda: made.desk.remove_source("yard"),
    ]
    for change in changes:
        with pytest.raises(ConfigError, match=r"site\.yaml:1:11: not valid YAML"):
            change()


def test_what_the_command_line_says_is_not_changed_here(path: Path) -> None:
    made = Made(path, ("sources.cam", "demo:"), ("sources.cam.wait", False), ("sources.dot.uri", "demo:"))
    for name in ("cam", "dot"):
        with pytest.raises(ConfigError, match=f"{name} was not added here: it stands on the command line"):
            made.desk.remove_source(name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "-a", "_a", "a" * 65, "a\n", "a b", "\x1b[2J", "é", "."])
@pytest.mark.parametrize("keep", ["restart", "file"])
def test_names_that_are_none_go_nowhere(made: Made, path: Path, name: str, keep: Any) -> None:
    before = tree(path.parent)
    with pytest.raises(BadNameError, match="can be no source's name"):
        made.desk.set_source(name, SOURCE, keep)
    with pytest.raises(BadNameError):
        made.desk.remove_source(name)
    assert (made.reloads, tree(path.parent)) == (0, before)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, r"sources\.gate\.uri: missing"),
        ({"uri": "demo:", "max_fps": "x"}, r"sources\.gate\.max_fps: 'x' is not allowed"),
        ({"uri": "demo:", "nope": 1}, r"sources\.gate\.nope: unknown key"),
        ({"uri": "x://admin:hunter22@h"}, r"sources\.gate\.uri: 'x://\*\*\*@h'"),
    ],
)
@pytest.mark.parametrize("keep", ["restart", "file"])
def test_a_wrong_source_is_not_added(made: Made, path: Path, table: dict[str, Any], says: str, keep: Any) -> None:
    before = tree(path)
    with pytest.raises(ConfigError, match=f"^{says}"):
        made.desk.set_source("gate", table, keep)
    assert (made.reloads, tree(path), made.sources) == (0, before, ["yard"])


def test_the_last_source_stays() -> None:
    made = Made(None, ("sources.a", "demo:"))
    made.desk.set_source("gate", SOURCE, "restart")
    made.config = made.reader.reading({"gate": SOURCE}).config
    assert made.desk.remove_source("gate").ok


# --- without a file ---


def test_without_a_file_sources_are_added_until_the_restart() -> None:
    made = Made(None, ("sources.a", "demo:"))
    view = made.desk.view(unredacted=True)
    assert (view.path, view.text, view.digest, view.reloadable) == (None, None, None, False)
    assert made.desk.set_source("gate", SOURCE, "restart").ok
    assert made.sources == ["a", "gate"]
    assert made.desk.remove_source("gate").ok
    assert made.sources == ["a"]
    changes: list[Callable[[], Outcome]] = [
        made.desk.reload,
        lambda: made.desk.reload(TEXT),
        lambda: made.desk.set_source("gate", SOURCE, "file"),
    ]
    for change in changes:
        with pytest.raises(ConfigError, match=r"the daemon was started without --config FILE"):
            change()
    with pytest.raises(ConfigError, match="there is no file to reload; start the daemon with --config FILE"):
        made.desk.read()
    assert made.desk.check(TEXT).refused == "the daemon was started without --config FILE"


# --- one at a time ---


def test_two_admins_do_not_mix(made: Made, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "BUSY_S", 0.0)
    made.answers = False
    first: list[object] = []
    thread = threading.Thread(target=lambda: first.append(made.desk.reload(MORE)))
    thread.start()
    until(lambda: made.waiting)
    with pytest.raises(BusyError, match="another change is being made"):
        made.desk.set_source("roof", SOURCE, "file")
    made.answer()
    thread.join()
    made.answers = True
    assert made.desk.set_source("roof", SOURCE, "file").ok
    assert made.sources == ["yard", "gate", "roof"]


def test_who_has_waited_long_enough_is_told_and_the_change_goes_on(
    made: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "WAIT_S", 0.0)
    made.answers = False
    with pytest.raises(UnfinishedError, match="the reload goes on"):
        made.desk.reload(MORE)
    until(lambda: made.waiting)
    assert path.read_text() == MORE
    made.failure = "the engine could not be built"
    made.answer()
    until(lambda: not made.desk._changing.locked())
    assert path.read_text() == TEXT, "it is put back all the same"


def test_a_daemon_that_ends_first_says_so(made: Made, path: Path) -> None:
    made.answers = False
    made.order = lambda: refused(TemporaryError("the daemon ends"))  # type: ignore[method-assign] # (a stand-in)
    made.desk.serve(Running(lambda: made.config, lambda: made.model, lambda: (), made.order))
    with pytest.raises(TemporaryError, match="the daemon ends"):
        made.desk.reload(MORE)
    assert path.read_text() == MORE


def test_before_the_daemon_is_there(path: Path) -> None:
    with pytest.raises(BusyError, match="the daemon is starting"):
        Desk(ConfigReader(path)).view()


def refused(error: EdgeinferError) -> Future[ReloadReport]:
    future: Future[ReloadReport] = Future()
    future.set_exception(error)
    return future


def until(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.002)


@pytest.mark.slow
@given(
    st.text("Sek\n é'\":#&*{}|>@/%ß☃", min_size=1, max_size=30).map(lambda text: f"Zq{text}Zq"),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.sampled_from([True, False, None]),
    st.integers(20, 80),
)
def test_whatever_a_password_is_and_however_it_is_written(
    secret: str, style: str | None, flow: bool | None, width: int
) -> None:
    """It goes, and all the rest stays."""
    data = {"frames": 7, "sources": {"a": {"user": "someone", "password": secret}, "b": {"uri": "rtsp://h/x"}}}
    written = yaml.safe_dump(
        data, default_style=style, default_flow_style=flow, width=width, allow_unicode=True, sort_keys=False
    )
    shown = redacted_text(written, "c.yaml")
    assert shown is not None
    assert "Zq" not in shown
    found = yaml.safe_load(shown)
    assert found["sources"]["a"].pop("password") == "***"
    assert found == {"frames": 7, "sources": {"a": {"user": "someone"}, "b": {"uri": "rtsp://h/x"}}}
