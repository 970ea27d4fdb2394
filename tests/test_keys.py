"""CURVE keys: files, lists, and what a daemon that uses them lets in."""

from __future__ import annotations

import json
import logging
import os
import stat
import string
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from edgeinfer.cli import run
from edgeinfer.client import Subscriber
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, TemporaryError, UnavailableError, UsageError
from edgeinfer.guard.limits import LOG_LINES, MAX_KEY_FILE_BYTES
from edgeinfer.messages import DAEMON, StatusMessage
from edgeinfer.sinks import zmq as zmq_sink
from edgeinfer.sinks.zmq import Curve, Options
from edgeinfer.sinks.zmq import open as open_publisher
from edgeinfer.transport import door, keys
from edgeinfer.transport.allowlist import AllowList
from edgeinfer.transport.zap import Question
from tests.conftest import Cli
from tests.test_messages import example
from tests.test_run import one_error_line
from tests.test_zmq import Start, serve_until, wait_for


def test_a_pair_is_written_once_and_its_secret_is_private(tmp_path: Path) -> None:
    os.umask(os.umask(0))
    secret, public = keys.write_pair(keys.generate(), tmp_path / "laptop")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    pair = keys.read_pair(secret)
    assert keys.read_public(str(public)) == keys.Client(pair.public, "laptop")
    assert keys.read_public(str(secret)).public == pair.public
    before = secret.read_bytes()
    with pytest.raises(UsageError, match="there already, and not replaced"):
        keys.write_pair(keys.generate(), tmp_path / "laptop")
    public.unlink()
    with pytest.raises(UsageError, match="there already, and not replaced"):
        keys.write_pair(keys.generate(), tmp_path / "laptop")
    assert secret.read_bytes() == before
    assert not public.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["laptop.key"]


def test_a_path_that_looks_like_a_key_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters, dots and slashes, forty in all: such a path was taken for the key, and nobody was let in."""
    monkeypatch.chdir(tmp_path)
    pair = keys.generate()
    keys.write_pair(pair, tmp_path / "x".ljust(36, "x"))
    text = "x" * 36 + ".pub"
    assert len(text) == len(pair.public)
    assert keys.read_public(text).public == pair.public


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    pair = keys.generate()
    assert pair.secret not in repr(pair)


@pytest.fixture(params=["root's", "a user's"])
def secret(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A secret of root, read by root, or of a user, read by that user."""
    path, _ = keys.write_pair(keys.generate(), tmp_path / "a")
    owner = 0 if request.param == "root's" else os.geteuid() or 12345
    if owner != os.geteuid():
        if os.geteuid() != 0:
            pytest.skip("needs root to give a file away")
        os.chown(path, owner, owner)
        monkeypatch.setattr(os, "geteuid", lambda: owner)
    return path


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o660, 0o620, 0o644, 0o666, 0o640, 0o610, 0o600, 0o400])
def test_a_secret_that_others_can_read_or_write_is_refused(secret: Path, mode: int) -> None:
    """root may keep one for a group, as systemd's credentials are; nobody else may."""
    secret.chmod(mode)
    good = {0o600, 0o400} | ({0o640, 0o610} if secret.stat().st_uid == 0 else set())
    if mode in good:
        assert keys.read_pair(secret).secret in secret.read_text()
        return
    with pytest.raises(ConfigError, match=r"others may read|may write it"):
        keys.read_pair(secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_key_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    secret, public = keys.write_pair(keys.generate(), tmp_path / "a")
    for path in (secret, public):
        os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        keys.read_pair(secret)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        keys.read_list(public)


@pytest.mark.parametrize("text", ["", "public a\nsecret b\n", "public\n", "x" * 100, "\xff"])
def test_what_is_no_key_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        keys.read_pair(path)


def test_halves_of_different_pairs(tmp_path: Path) -> None:
    one, other = keys.generate(), keys.generate()
    path = tmp_path / "a.key"
    path.write_text(f"public {one.public}\nsecret {other.secret}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="do not belong together"):
        keys.read_pair(path)


def test_a_list_grows_and_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    path.write_text("# who may watch\n\n")
    one, other = keys.generate().public, keys.generate().public
    assert keys.allow(path, keys.Client(one, "laptop"))
    assert not keys.allow(path, keys.Client(one, "again"))
    with pytest.raises(UsageError, match="another key is called 'laptop'"):
        keys.allow(path, keys.Client(other, "laptop"))
    assert keys.allow(path, keys.Client(other, ""))
    assert keys.read_list(path) == [keys.Client(one, "laptop"), keys.Client(other, "")]
    assert keys.revoke(path, "laptop").public == one
    assert keys.read_list(path) == [keys.Client(other, "")]
    assert path.read_text().startswith("# who may watch\n")
    with pytest.raises(UsageError, match="no client 'laptop'"):
        keys.revoke(path, "laptop")


def test_a_key_that_begins_like_a_comment(tmp_path: Path) -> None:
    key = "#" + "a" * 39
    path = tmp_path / "clients"
    assert keys.allow(path, keys.Client(key, "odd"))
    assert keys.read_list(path) == [keys.Client(key, "odd")]


@pytest.mark.parametrize("name", ["a", "x" * 64, "a.b_c@d-e", "0"])
def test_names_that_a_key_can_have(tmp_path: Path, name: str) -> None:
    secret, public = keys.write_pair(keys.generate(), tmp_path / name)
    assert (secret.name, public.name) == (f"{name}.key", f"{name}.pub")
    assert stat.S_IMODE(public.stat().st_mode) == 0o644, "the other side may read it"
    assert keys.read_public(str(public)).name == name
    assert keys.read_public(str(secret)).name == name


@pytest.mark.parametrize("name", ["x" * 65, "a b", "ä", "a:b", "a\n"])
def test_names_that_a_key_cannot_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a key"):
        keys.write_pair(keys.generate(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match="can't be written"):
        keys.write_pair(keys.generate(), tmp_path / "none" / "a")


Z85 = string.digits + string.ascii_letters + ".-:+=^!/*?&<>()[]{}@%$#"


@given(st.text(Z85, min_size=40, max_size=40))
@settings(max_examples=20)
def test_every_text_of_z85_is_a_key(key: str) -> None:
    """The alphabet of ZeroMQ RFC 32."""
    assert all(keys.read_public(each) == keys.Client(each, "") for each in (key, Z85[:40], Z85[-40:]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clients"
        keys.allow(path, keys.Client(key, "n"))
        assert keys.read_list(path) == [keys.Client(key, "n")]
        assert keys.revoke(path, key) == keys.Client(key, "n")


def test_a_file_of_several_keys_is_no_public_key(tmp_path: Path) -> None:
    for count in (0, 2):
        (tmp_path / "x.pub").write_text("".join(f"{keys.generate().public}\n" for _ in range(count)))
        with pytest.raises(ConfigError, match=f"holds {count} public keys instead of one"):
            keys.read_public(str(tmp_path / "x.pub"))


def test_clients_without_names(tmp_path: Path) -> None:
    """Any number of them, each on a line of its own, even after a line that was never ended."""
    path = tmp_path / "clients"
    one, two, three = (keys.generate().public for _ in range(3))
    path.write_text(f"  {one}  first  ")
    assert keys.allow(path, keys.Client(two, ""))
    assert keys.allow(path, keys.Client(three, ""))
    assert keys.read_list(path) == [keys.Client(one, "first"), keys.Client(two, ""), keys.Client(three, "")]
    assert not keys.allow(path, keys.Client(two, "named"))
    assert keys.revoke(path, two).public == two
    assert [client.public for client in keys.read_list(path)] == [one, three]


@pytest.mark.parametrize("suffix", ["pub", "key"])
def test_a_client_is_revoked_by_its_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "clients"
    for name in ("a", "b"):
        keys.write_pair(keys.generate(), tmp_path / name)
        keys.allow(path, keys.read_public(str(tmp_path / f"{name}.pub")))
    assert keys.revoke(path, str(tmp_path / f"a.{suffix}")).name == "a"
    assert [client.name for client in keys.read_list(path)] == ["b"]
    with pytest.raises(UsageError, match=r"no client .*a\.pub. on this list"):
        keys.revoke(path, str(tmp_path / "a.pub"))


def test_a_list_keeps_its_mode_and_its_place(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.touch()
    real.chmod(0o640)
    link.symlink_to("real")
    keys.allow(link, keys.Client(keys.generate().public, "a"))
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert len(keys.read_list(real)) == 1
    keys.allow(tmp_path / "new", keys.Client(keys.generate().public, "a"))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link", "new"}, "nothing is left beside it"


@pytest.mark.parametrize("mode", [0o602, 0o622])
def test_a_list_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "clients"
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="may write it"):
        keys.read_list(path)


def test_what_is_no_file_of_keys(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        keys.read_list(tmp_path / "pipe")
    with pytest.raises(InputError, match="Is a directory"):
        keys.read_list(tmp_path / "folder")
    (tmp_path / "large").write_text("# " + "x" * MAX_KEY_FILE_BYTES)
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        keys.read_list(tmp_path / "large")
    (tmp_path / "large").write_text("# " + "x" * (MAX_KEY_FILE_BYTES - 2))
    assert keys.read_list(tmp_path / "large") == []
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not a file of keys"):
        keys.read_list(tmp_path / "binary")
    with pytest.raises(InputError, match="No such file"):
        keys.read_list(tmp_path / "none")


@pytest.mark.parametrize("line", ["x", "a" * 41, f"{'a' * 40} two words", f"{'a' * 40} \x1b[31m"])
def test_lines_that_are_no_client(tmp_path: Path, line: str) -> None:
    path = tmp_path / "clients"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        keys.read_list(path)


def test_a_list_that_becomes_unreadable_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    key = keys.generate().public
    keys.allow(path, keys.Client(key, "a"))
    allowed = AllowList(path)
    assert key in allowed
    assert not allowed.refresh()
    path.write_text("rubbish\n")
    assert allowed.refresh()
    assert key not in allowed
    assert "line 1" in allowed.error
    path.unlink()
    allowed.refresh()
    assert key not in allowed
    keys.allow(path, keys.Client(key, "a"))
    assert allowed.refresh()
    assert key in allowed
    assert not allowed.error


def test_a_list_is_another_one_where_its_keys_are_others(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    one, other = keys.generate().public, keys.generate().public
    path.write_text(f"{one}\n")
    allowed = AllowList(path)
    path.write_text(f"# a comment\n{one}\n")
    assert not allowed.refresh(), "the same keys"
    before = path.stat()
    path.write_text(f"# a comment\n{other}\n")  # of the same length, in the same file
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert allowed.refresh()
    assert other in allowed
    assert one not in allowed
    path.chmod(0o666)
    assert allowed.refresh(), "that others may write it now is a change too"
    assert other not in allowed


# --- over the wire ---


class Serving:
    """A publisher with keys that publishes a status all the time, on a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("server", "laptop", "stranger"):
            keys.write_pair(keys.generate(), folder / name)
        self.list = folder / "clients"
        keys.allow(self.list, keys.read_public(str(folder / "laptop.pub")))
        curve = Curve(secret_key=str(folder / "server.key"), allow=str(self.list))
        self.sink = open_publisher(Options(bind="tcp://127.0.0.1:*", curve=curve))
        self._all = [example("status"), *(structs.replace(example(kind), source=DAEMON) for kind in ("info", "status"))]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.wait(0.01):
            for message in self._all:
                self.sink.write(message, None)
            self.sink.service()

    def options(self, client: str) -> list[str]:
        return ["--server-key", str(self.folder / "server.pub"), "--key", str(self.folder / f"{client}.key")]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.sink.close()

    def subscriber(self, client: str | None = "laptop", server: str = "server") -> Subscriber:
        public, key = self.folder / f"{server}.pub", self.folder / f"{client}.key"
        return Subscriber(
            self.sink.endpoint,
            kinds=("status",),
            server_key=public if client else None,
            key=key if client else None,
        )


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    server = Serving(tmp_path)
    yield server
    server.close()


def test_a_client_on_the_list_gets_messages(serving: Serving) -> None:
    with serving.subscriber() as subscriber:
        assert isinstance(subscriber.receive(20), StatusMessage)
        assert not subscriber.refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "server", "says"),
    [
        ("stranger", "server", "does not allow this key"),
        ("laptop", "stranger", "public key is another one"),
        (None, "server", "wants a key"),
    ],
)
def test_anybody_else_gets_nothing_and_is_told_why(
    serving: Serving, client: str | None, server: str, says: str
) -> None:
    with serving.subscriber(client, server) as subscriber:

        def refused() -> bool:
            assert subscriber.receive(0.05) is None
            return bool(subscriber.refused)

        wait_for(refused, "the refusal")
        assert says in subscriber.refused
        assert subscriber.receive(0.3) is None


def test_a_client_with_keys_and_a_daemon_without(serving: Serving, tmp_path: Path) -> None:
    plain = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    public, key = tmp_path / "server.pub", tmp_path / "laptop.key"
    with closing(plain), Subscriber(plain.endpoint, server_key=public, key=key) as subscriber:
        wait_for(lambda: subscriber.receive(0.05) is None and bool(subscriber.refused), "the refusal")
        assert "uses no keys" in subscriber.refused


@pytest.mark.slow
@pytest.mark.parametrize("asked_first", [False, True], ids=["the publisher notices", "a client's question notices"])
def test_a_key_that_is_taken_back_ends_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_first: bool
) -> None:
    """Whoever reads the changed list first."""
    monkeypatch.setattr(door, "REFRESH_S", 0.01)
    for name in ("server", "laptop", "desk"):
        keys.write_pair(keys.generate(), tmp_path / name)
    for name in ("laptop", "desk"):
        keys.allow(tmp_path / "clients", keys.read_public(str(tmp_path / f"{name}.pub")))
    curve = Curve(secret_key=str(tmp_path / "server.key"), allow=str(tmp_path / "clients"))
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*", curve=curve))
    with ExitStack() as stack:
        stack.callback(sink.close)
        for name in ("laptop", "desk"):
            public, key = tmp_path / "server.pub", tmp_path / f"{name}.key"
            stack.enter_context(Subscriber(sink.endpoint, kinds=("status",), server_key=public, key=key))
        serve_until(sink, lambda: sink.subscribers == 2, "both")
        gone = keys.revoke(tmp_path / "clients", "laptop")
        if asked_first:
            sink._door._consider(question(gone.public))
            wait_for(lambda: not sink._door._may_enter(question(gone.public)), "the list to be read")
        serve_until(sink, lambda: sink.subscribers == 1, "the end of one")
        for _ in range(20):
            sink.service()
        assert sink.subscribers == 1, "the other one stays"


def question(key: str) -> Question:
    """libzmq's, of a client with this key."""
    return Question((b"",), b"1", door.DOMAIN, "127.0.0.1", "CURVE", key)


def test_each_stranger_is_named_once_and_not_too_many(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    strangers = [keys.generate().public for _ in range(LOG_LINES + 5)]
    for key in (*strangers, *strangers):
        assert not serving.sink._door._may_enter(question(key))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split()[7] for text in told] == strangers[:LOG_LINES]
    serving.sink._door._said.settle(final=True)
    assert "refused clients: … and 5 more" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("asked_first", [False, True], ids=["the door notices", "a client's question notices"])
def test_a_list_that_is_damaged_is_told_of_once(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, asked_first: bool
) -> None:
    """Whoever reads it first."""
    laptop = keys.read_public(str(serving.folder / "laptop.pub")).public
    serving.list.write_text("rubbish\n")
    if asked_first:
        serving.sink._door._consider(question(laptop))
    wait_for(lambda: "nobody is let in" in caplog.text, "the warning")
    assert not serving.sink._door._may_enter(question(laptop))
    serving.sink._door.refresh()
    assert caplog.text.count("nobody is let in") == 1


def test_a_question_that_is_none_of_ours(serving: Serving) -> None:
    laptop = keys.read_public(str(serving.folder / "laptop.pub")).public
    assert serving.sink._door._may_enter(question(laptop))
    good = question(laptop)
    others = [replace(good, domain="other"), replace(good, mechanism="PLAIN"), replace(good, mechanism="NULL", key="")]
    assert not any(serving.sink._door._may_enter(other) for other in (*others, replace(good, key="")))


@pytest.mark.slow
def test_a_key_that_is_allowed_later_gets_in_and_is_refused_no_more(serving: Serving) -> None:
    """ZeroMQ itself would never try again."""
    with serving.subscriber("stranger") as subscriber:
        wait_for(lambda: subscriber.receive(0.05) is None and bool(subscriber.refused), "the refusal")
        keys.allow(serving.list, keys.read_public(str(serving.folder / "stranger.pub")))
        wait_for(lambda: subscriber.receive(0.05) is not None, "a message once allowed")
        assert not subscriber.refused


def test_where_keys_are_checked_before_anything_is_opened(tmp_path: Path) -> None:
    keys.write_pair(keys.generate(), tmp_path / "server")
    curve = Curve(secret_key=str(tmp_path / "server.key"), allow=str(tmp_path / "clients"))
    with pytest.raises(InputError, match="clients: No such file"):
        zmq_sink.check(Options(bind="tcp://0.0.0.0:1", curve=curve))
    (tmp_path / "clients").touch()
    zmq_sink.check(Options(bind="tcp://0.0.0.0:1", curve=curve))
    (tmp_path / "server.key").unlink()
    with pytest.raises(InputError, match=r"server\.key: No such file"):
        zmq_sink.check(Options(curve=curve))


@pytest.mark.slow
def test_the_list_takes_effect_while_the_daemon_runs(serving: Serving) -> None:
    with serving.subscriber("stranger") as subscriber:
        wait_for(lambda: subscriber.receive(0.05) is None and bool(subscriber.refused), "the refusal")
        keys.allow(serving.list, keys.read_public(str(serving.folder / "stranger.pub")))
        wait_for(lambda: subscriber.receive(0.05) is not None, "a message once allowed")
        assert not subscriber.refused
        keys.revoke(serving.list, "stranger")
        wait_for(lambda: subscriber.receive(0.5) is None, "the end of messages once revoked")
        wait_for(lambda: subscriber.receive(0.05) is None and bool(subscriber.refused), "the refusal")


@pytest.mark.parametrize("command", ["reload", "status"])
@pytest.mark.parametrize(("client", "says"), [(None, "wants a key"), ("stranger", "does not allow this key")])
def test_a_command_that_is_turned_away_says_why(serving: Serving, command: str, client: str | None, says: str) -> None:
    with pytest.raises(UnavailableError, match=says):
        run([command, serving.sink.endpoint, *(serving.options(client) if client else ())])


def test_reload_comes_through_with_its_keys(serving: Serving) -> None:
    """As far as the daemon's own word that it runs elsewhere, where a signal would not reach it."""
    with pytest.raises(UnavailableError, match="the daemon runs on x, not here"):
        run(["reload", serving.sink.endpoint, *serving.options("laptop")])


def test_one_key_without_the_other() -> None:
    for server_key, key in (("a" * 40, None), (None, "a.key")):
        with pytest.raises(UsageError, match="belong together; --server-key and --key"):
            Subscriber("tcp://127.0.0.1:1", server_key=server_key, key=key)


@pytest.mark.parametrize(
    ("secret", "clients", "kind"),
    [("none.key", "clients", InputError), ("server.key", "none", InputError), ("server.pub", "clients", ConfigError)],
)
def test_a_daemon_without_its_files_does_not_start(
    tmp_path: Path, secret: str, clients: str, kind: type[EdgeinferError]
) -> None:
    keys.write_pair(keys.generate(), tmp_path / "server")
    (tmp_path / "server.pub").chmod(0o600)
    (tmp_path / "clients").touch()
    curve = Curve(secret_key=str(tmp_path / secret), allow=str(tmp_path / clients))
    with pytest.raises(kind):
        open_publisher(Options(bind="tcp://127.0.0.1:*", curve=curve))


def test_the_commands(cli: Cli, tmp_path: Path, daemon_process: Start) -> None:
    for name in ("server", "laptop"):
        made = cli("keys", "new", name)
        assert made.returncode == 0, made.stderr
    again = cli("keys", "new", "laptop")
    assert again.returncode == 64
    assert "not replaced" in one_error_line(again)
    assert cli("keys", "allow", "clients", "laptop.pub").returncode == 0
    (listed,) = json.loads(cli("keys", "ls", "clients", "--json").stdout)
    assert listed == {"name": "laptop", "public_key": cli("keys", "show", "laptop.key").stdout.strip()}
    secret = (tmp_path / "server.key").read_text().split()[-1]
    # All addresses, which only keys make acceptable. The traffic stays on this machine.
    process = daemon_process(
        "run", "--source", "demo:", "--bind", "tcp://0.0.0.0:*", "--set", "publish.curve.secret_key=server.key",
        "--set", "publish.curve.allow=clients",
    )  # fmt: skip
    assert process.stderr is not None
    while "publishing on" not in (line := process.stderr.readline()):
        assert line, "it ended early"
    endpoint = f"tcp://127.0.0.1:{line.strip().rpartition(':')[2]}"
    let_in = cli("listen", endpoint, "--server-key", "server.pub", "--key", "laptop.key", "--count", "2")
    assert let_in.returncode == 0, let_in.stderr
    assert len(let_in.stdout.splitlines()) == 2
    refused = cli("listen", endpoint, "--count", "1")
    assert refused.returncode == 69
    assert "wants a key" in one_error_line(refused)
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert secret not in out + err + let_in.stderr + refused.stderr
