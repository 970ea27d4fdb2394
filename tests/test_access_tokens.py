"""Files of tokens: made, read, taken back, and what happens to them while a daemon runs."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.commands import web
from edgeinfer.config.settings import load_config, read_config
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, TemporaryError, UsageError
from edgeinfer.guard.limits import MAX_TOKEN_FILE_BYTES, MAX_TOKENS
from edgeinfer.guard.process_list import masked
from edgeinfer.guard.redaction import hidden_meanwhile, redact, remember_secrets
from edgeinfer.web.access import tokens
from edgeinfer.web.access.tokens import PATIENCE_S, TokenList
from tests.conftest import Cli
from tests.test_access_login import Clock
from tests.test_run import one_error_line

SECRET = "eit_" + "a" * 43


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web.tokens"


def test_a_token_is_256_random_bits_and_only_its_hash_is_kept(path: Path) -> None:
    token, secret = tokens.add(path, "viewer")
    assert len(secret.removeprefix("eit_")) == 43  # 256 bits in base64
    assert secret not in path.read_text()
    assert path.read_text() == f"viewer:viewer:{token.digest}\n"
    assert len({tokens.mint() for _ in range(100)}) == 100
    assert tokens.matching(secret, tokens.read(path)) == token


def test_the_file_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        tokens.add(path, "admin")
        tokens.add(path, "admin")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_names(path: Path) -> None:
    found = [tokens.add(path, "viewer")[0], tokens.add(path, "admin")[0], tokens.add(path, "viewer", "tv")[0]]
    assert [(each.role, each.name) for each in found] == [("viewer", "viewer"), ("admin", "admin"), ("viewer", "tv")]
    assert tokens.add(path, "viewer")[0].name == "viewer-2"
    with pytest.raises(UsageError, match="another token is called 'tv'"):
        tokens.add(path, "admin", "tv")
    for name in ("a b", "ä", "x" * 65, "a:b", "a\n", ""):
        with pytest.raises(UsageError, match="can't name a token"):
            tokens.add(path, "viewer", name)


def test_a_token_is_taken_back_and_the_rest_stays(path: Path) -> None:
    path.write_text("# who may look\n")
    path.chmod(0o600)
    (_, one), (_, other) = (tokens.add(path, "viewer", name) for name in ("one", "other"))
    assert tokens.revoke(path, "one").name == "one"
    assert path.read_text().startswith("# who may look\nviewer:other:")
    assert tokens.matching(one, tokens.read(path)) is None
    assert tokens.matching(other, tokens.read(path)) is not None
    with pytest.raises(UsageError, match="no token is called 'one'"):
        tokens.revoke(path, "one")


def test_what_is_added_to_a_line_that_was_never_ended(path: Path) -> None:
    tokens.add(path, "viewer", "one")
    path.write_text(path.read_text().rstrip())
    tokens.add(path, "viewer", "two")
    assert [each.name for each in tokens.read(path)] == ["one", "two"]


def test_a_file_holds_so_many_tokens(path: Path) -> None:
    line = "viewer:n{}:" + "0" * 64 + "\n"
    path.write_text("".join(line.format(index) for index in range(MAX_TOKENS)))
    path.chmod(0o600)
    assert len(tokens.read(path)) == MAX_TOKENS
    with pytest.raises(UsageError, match=f"holds {MAX_TOKENS} tokens"):
        tokens.add(path, "viewer")
    path.write_text(path.read_text() + line.format("more"))
    with pytest.raises(ConfigError, match=f"more than {MAX_TOKENS} tokens"):
        tokens.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "viewer:a:" + "0" * 63,
        "viewer:a:" + "g" * 64,
        "root:a:" + "0" * 64,
        "viewer::" + "0" * 64,
        "viewer:a b:" + "0" * 64,
        "viewer:" + "0" * 64,
        "viewer:a:" + "0" * 64 + "\nadmin:a:" + "1" * 64,
        "\0",
        "ä",
        "#" * (MAX_TOKEN_FILE_BYTES + 1),
    ],
)
def test_what_is_no_file_of_tokens(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        tokens.read(path)


@given(st.text(max_size=300))
def test_any_text_is_tokens_or_an_error(text: str) -> None:
    try:
        found = tokens.parse(text, Path("f"))
    except ConfigError:
        return
    assert len({each.name for each in found}) == len(found) <= MAX_TOKENS


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644, 0o666, 0o660])
def test_a_file_of_tokens_that_others_may_read_or_write_is_refused(path: Path, mode: int) -> None:
    tokens.add(path, "viewer")
    path.chmod(mode)
    for change in (lambda: tokens.add(path, "admin"), lambda: tokens.revoke(path, "viewer"), lambda: tokens.read(path)):
        with pytest.raises(ConfigError, match=r"others may read|may write it"):
            change()


def test_a_group_that_root_lets_read_stays(path: Path) -> None:
    """The service's: its owner, group and mode are kept when the file is replaced."""
    tokens.add(path, "viewer")
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(path, 0, 12345)
    path.chmod(0o640)
    tokens.add(path, "admin")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 12345, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_file_of_tokens_of_somebody_else_is_refused(path: Path) -> None:
    tokens.add(path, "viewer")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        tokens.read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a link away")
def test_a_link_to_tokens_that_somebody_else_made_is_refused(tmp_path: Path, path: Path) -> None:
    """It could name an older list of ours, with what was revoked since."""
    tokens.add(path, "viewer")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert tokens.read(link) == tokens.read(path)
    os.chown(link, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        tokens.read(link)


def test_a_folder_in_which_others_could_replace_the_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others could replace it"):
        tokens.add(folder / "t", "viewer")
    assert not list(folder.iterdir())
    folder.chmod(0o1777)
    tokens.add(folder / "t", "viewer")
    (tmp_path / "link").symlink_to(folder / "t")
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others could replace it"):
        tokens.read(tmp_path / "link")


def test_a_link_is_kept_when_its_file_is_changed(tmp_path: Path, path: Path) -> None:
    tokens.add(path, "viewer")
    link = tmp_path / "link"
    link.symlink_to(path)
    tokens.add(link, "admin")
    assert link.is_symlink()
    assert len(tokens.read(path)) == 2


def test_what_is_no_file_or_not_there(tmp_path: Path) -> None:
    for change in (tokens.read, lambda path: tokens.revoke(path, "x")):
        with pytest.raises(InputError, match="No such file"):
            change(tmp_path / "none")
    assert not list(tmp_path.iterdir()), "what is only read is not made"
    with pytest.raises(TemporaryError, match="can't be written"):
        tokens.add(tmp_path / "none" / "t", "viewer")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(EdgeinferError):
            tokens.read(path)
    with pytest.raises(ConfigError, match="not a regular file"):
        tokens.add(tmp_path / "pipe", "viewer")


def test_commands_at_once_lose_no_token(path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(tokens.add(path, "viewer")[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.read(path)) == len(made) == 8
    assert all(tokens.matching(secret, tokens.read(path)) for secret in made)


def test_a_file_that_another_command_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "WAIT_S", 0.0)
    tokens.add(path, "viewer")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TemporaryError, match="another command is changing it"):
            tokens.add(path, "admin")


def test_a_disk_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.add(path, "viewer")
    before = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TemporaryError, match="No space left"):
        tokens.add(path, "admin")
    assert path.read_text() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("secret", ["", "a", SECRET + "a", SECRET[:-1], "x" + SECRET[1:], SECRET + "\n", "é" * 47])
def test_what_has_not_the_form_of_a_token_is_none_even_if_its_hash_is_there(secret: str) -> None:
    """A weak word that somebody has hashed by hand lets nobody in."""
    weak = tokens.Token("admin", "weak", tokens.digest(secret))
    assert tokens.matching(secret, [weak]) is None
    right = tokens.Token("admin", "right", tokens.digest(SECRET))
    assert tokens.matching(secret, [weak, right]) is None
    assert tokens.matching(SECRET, [weak, right]) == right


def test_hashes_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("edgeinfer.web.access.tokens.hmac.compare_digest", compare)
    known = [tokens.Token("viewer", str(index), tokens.digest(f"eit_{index:043}")) for index in range(9)]
    assert tokens.matching(f"eit_{0:043}", known) == known[0]
    assert compared == [each.digest for each in known]


def test_a_token_that_is_revoked_counts_no_more(path: Path) -> None:
    token, secret = tokens.add(path, "viewer")
    listed = TokenList(path)
    assert listed.find(secret) == token
    tokens.revoke(path, "viewer")
    listed.refresh()
    assert listed.find(secret) is None
    assert not listed.known(token)
    _, later = tokens.add(path, "viewer")
    listed.refresh()
    assert listed.find(later) is not None
    assert not listed.known(token), "another of the same name"


def test_a_token_that_becomes_another_roles_counts_no_more_as_it_did(path: Path) -> None:
    token, secret = tokens.add(path, "admin")
    listed = TokenList(path)
    path.write_text(path.read_text().replace("admin:", "viewer:", 1))
    listed.refresh()
    assert not listed.known(token)
    found = listed.find(secret)
    assert found is not None
    assert found.role == "viewer"


def _emptied(path: Path) -> None:
    path.write_text("")


def _garbled(path: Path) -> None:
    path.write_text("rubbish")


def _open_to_all(path: Path) -> None:
    path.chmod(0o666)


def _in_an_open_folder(path: Path) -> None:
    path.parent.chmod(0o777)


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("harm", [_emptied, _garbled, _open_to_all, _in_an_open_folder, _a_pipe])
def test_a_file_that_goes_bad_while_the_daemon_runs_lets_nobody_in(
    path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    token, secret = tokens.add(path, "viewer")
    text = path.read_text()
    listed = TokenList(path)
    harm(path)
    for _ in range(3):
        listed.refresh()
    assert listed.find(secret) is None
    assert not listed.known(token)
    assert len(caplog.records) == (harm is not _emptied), "said once"
    path.parent.chmod(0o700)
    path.unlink()
    path.touch(0o600)
    path.write_text(text)
    listed.refresh()
    assert listed.find(secret) == token


def test_a_file_that_is_gone_counts_for_a_moment_and_then_lets_nobody_in(path: Path) -> None:
    """An editor takes a file away before it puts the new one there."""
    clock = Clock()
    token, _ = tokens.add(path, "viewer")
    listed = TokenList(path, clock)
    text = path.read_text()
    path.unlink()
    clock.now_s += PATIENCE_S
    listed.refresh()
    assert listed.known(token)
    clock.now_s += 0.1
    assert not listed.known(token)
    path.touch(0o600)
    path.write_text(text)
    listed.refresh()
    assert listed.known(token)


def test_a_disk_that_hangs_lets_nobody_in(path: Path) -> None:
    """The look never comes back, so that nothing is told but the time that has gone."""
    clock = Clock()
    token, _ = tokens.add(path, "viewer")
    listed = TokenList(path, clock)
    clock.now_s += PATIENCE_S + 0.1
    assert not listed.known(token)


def test_a_file_without_tokens_is_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.touch(0o600)
    assert not TokenList(path).tokens
    assert "nobody can log in" in caplog.text


def test_no_text_shows_a_token_or_a_session() -> None:
    for secret in (tokens.mint(), "eis_" + "b-_" * 14 + "c"):
        for text in (secret, f"x{{'{secret}'}}", f"cookie: a={secret}; b", f"token%3D{secret}"):
            shown = redact(text)
            assert secret not in shown
            assert secret[4:20] not in shown


def test_a_token_is_printed_once_and_nothing_beside_it(tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "t"
    made = runner.invoke(web.command, ["token", "new", "--admin", "--name", "me", "--file", str(path)])
    assert made.exit_code == 0
    secret = made.stdout.removesuffix("\n")
    assert tokens.matching(secret, tokens.read(path)) == tokens.Token("admin", "me", tokens.digest(secret))
    assert secret not in made.stderr
    assert str(path) in made.stderr
    listed = runner.invoke(web.command, ["token", "ls", "--file", str(path)])
    assert listed.stdout == "admin   me\n"
    as_json = runner.invoke(web.command, ["token", "ls", "--json", "--file", str(path)])
    assert as_json.stdout == '[{"name": "me", "role": "admin"}]\n'
    gone = runner.invoke(web.command, ["token", "revoke", "me", "--file", str(path)])
    assert gone.stdout == f"{path}: me may not change things any more\n"
    assert tokens.read(path) == ()


def test_without_a_file_a_users_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONFIGURATION_DIRECTORY", raising=False)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_CONFIG_HOME", folder)
        made = CliRunner().invoke(web.command, ["token", "new"])
        path = Path(folder) / "edgeinfer" / "web.tokens"
        assert tokens.matching(made.stdout.strip(), tokens.read(path))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_errors_of_the_command_are_one_line(cli: Cli) -> None:
    for args in (("ls", "--file", "none"), ("revoke", "x", "--file", "none"), ("new", "--file", "none/t")):
        process = cli("web", "token", *args)
        assert process.stdout == ""
        assert "none" in one_error_line(process)


def test_a_log_line_of_a_wrong_file_shows_no_hash(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token, _ = tokens.add(path, "viewer")
    listed = TokenList(path)
    path.write_text(f"{path.read_text()}viewr:x:{token.digest}\n")
    listed.refresh()
    assert "line 2: not ROLE:NAME:HASH" in caplog.text
    assert token.digest not in caplog.text


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_errors_name_the_files_of_tokens_and_keys(tmp_path: Path, quote: str) -> None:
    """Their keys are called as secrets are, which are shown nowhere."""
    config = tmp_path / "c.yaml"
    files = f"token: {quote}{tmp_path}/web.tokens{quote}, tls: {{cert: c.pem, key: {quote}key.pem{quote}}}"
    config.write_text(f"sources: {{a: 'demo:'}}\nhttp: {{web: true, {files}}}\n")
    load_config(config)
    for text in (f"{tmp_path}/web.tokens: No such file", "key.pem: no key"):
        assert redact(text) == text
    load_config(config, [("http.token", "other.tokens")])
    assert redact("other.tokens: No such file") == "other.tokens: No such file"


def test_what_is_no_name_of_a_file_or_a_secret_elsewhere_is_still_hidden(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    for value, rest in (
        ("hunter2hunter2", ""),
        (tokens.mint(), ""),
        ("a.secret", ", x: {uri: '0', password: a.secret}"),
    ):
        config.write_text(f"sources: {{a: 'demo:'{rest}}}\nhttp: {{web: true, token: {value}}}\n")
        with contextlib.suppress(ConfigError):
            load_config(config)
        assert value not in redact(f"{value}: No such file")


def test_a_text_of_others_lays_no_secret_open(tmp_path: Path) -> None:
    """A viewer who has one checked can't have the log show what the daemon keeps to itself."""
    remember_secrets(["pass.word"])
    text = "http: {web: true, token: pass.word, tls: {cert: c, key: mine.pem}}"
    with hidden_meanwhile(text):
        read_config(tmp_path / "c.yaml", text=text)
        assert redact("pass.word and mine.pem") == "*** and mine.pem"
    assert redact("pass.word") == "***"


def test_a_file_of_tokens_on_the_command_line_is_no_password() -> None:
    for argument in ("http.token=web.tokens", "--set=http.token=/etc/edgeinfer/tokens", "http.tls.key=key.pem"):
        assert masked(argument) == argument
    for argument in (f"http.token={SECRET}", "http.token=hunter2hunter2", "x.token=web.tokens"):
        assert "***" in masked(argument)
