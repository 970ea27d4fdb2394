"""CURVE keys: files, lists, and what a daemon that uses them lets in."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from msgspec import structs

from edgeinfer.cli import run
from edgeinfer.client import Subscriber
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, UnavailableError, UsageError
from edgeinfer.messages import DAEMON, StatusMessage
from edgeinfer.sinks import zmq as zmq_sink
from edgeinfer.sinks.zmq import Curve, Options
from edgeinfer.sinks.zmq import open as open_publisher
from edgeinfer.transport import keys
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
    allowed = keys.AllowList(path)
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


@pytest.mark.parametrize("asked_first", [False, True], ids=["the publisher notices", "a client's question notices"])
def test_a_key_that_is_taken_back_ends_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_first: bool
) -> None:
    """Whoever reads the changed list first."""
    monkeypatch.setattr(zmq_sink, "REFRESH_S", 0.0)
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
            assert sink._guard is not None
            assert not sink._guard.callback("edgeinfer", gone.public.encode())
        serve_until(sink, lambda: sink.subscribers == 1, "the end of one")
        for _ in range(20):
            sink.service()
        assert sink.subscribers == 1, "the other one stays"


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
    with pytest.raises(UsageError, match="belong together"):
        Subscriber("tcp://127.0.0.1:1", server_key="a" * 40)


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
